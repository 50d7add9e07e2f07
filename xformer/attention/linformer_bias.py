r"""A relative bias under a projection of the keys' length, without the queries x keys table between them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xformer.core.bias import TableBias


def projected_bias(
    bias: TableBias, projection: Float[Tensor, "#b #h r length"], queries: Int[Tensor, "#b q"], max_query: int
) -> Float[Tensor, "#b h q r"]:
    """B E^T with B_ij = b(j - p_i), for keys at positions j = 0 ... length - 1.

    A Toeplitz product, by the Fourier transform: time O(n log n r) and memory O(n r) for each head. The rounding
    error is relative to the largest entry, as in any dense product of that many terms; in float64 it does not matter.

    Args:
        bias: the table b.
        projection: E, with a column for each position.
        queries: p, the queries' positions.
        max_query: all of them are smaller.
    """
    length = projection.shape[-1]
    period = length + max_query - 1
    # The product at query position i is sum_j b(j - i) E_j: a convolution of E with b(-s) at s = i - j.
    shifts = torch.arange(period, device=projection.device)
    shifts = torch.where(shifts < max_query, shifts, shifts - period)
    table = torch.fft.rfft(bias.table(-shifts).double())  # h f
    spectrum = torch.fft.rfft(projection.double(), n=period)  # b h r f
    if spectrum.shape[1] == 1:
        spectrum = spectrum.expand(-1, len(table), -1, -1)
    places = queries.clamp(0, max_query - 1)[:, None, :]

    def of_head(head: int) -> Tensor:
        whole = torch.fft.irfft(table[head] * spectrum[:, head], n=period)  # b r position
        batch = max(len(whole), len(places))
        found = whole.expand(batch, -1, -1).gather(-1, places.expand(batch, whole.shape[1], -1))
        mixed: Tensor = found.mT.to(projection.dtype)
        return mixed

    return torch.stack([of_head(head) for head in range(len(table))], dim=1)
