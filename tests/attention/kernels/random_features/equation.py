"""Performer's equation with everything written out: every pair of a query and a key, in float64."""

import torch
from torch import Tensor

from xformer.attention.kernels.random_features.features import RELU_OFFSET, RandomFeatures
from xformer.core.bias import TableBias
from xformer.core.mask import Mask
from xformer.position.alibi import LinearBias

HEADS, DIM, FEATURES = 2, 16, 32


class Clipped(TableBias):
    """A learned table, constant from half its length on; it says so only where `reach` is given."""

    def __init__(self, weight: Tensor, reach: int | None) -> None:
        self.weight, self.half = weight, weight.shape[1] // 2
        if reach is not None:
            self.reach = reach

    def table(self, distances: Tensor) -> Tensor:
        return self.weight[:, distances.clamp(-self.half, self.half) + self.half]


def biases() -> dict[str, TableBias | None]:
    weight = 2 * torch.randn(HEADS, 2 * 5 + 1, generator=torch.Generator().manual_seed(7))
    wide = 2 * torch.randn(HEADS, 2 * 200 + 1, generator=torch.Generator().manual_seed(8))
    return {
        "none": None,
        "alibi": LinearBias(torch.tensor([0.5, 0.01])),
        "clipped": Clipped(weight, 5),
        "clipped_beyond_a_chunk": Clipped(wide, 200),
        "unknown": Clipped(weight.clone(), None),
    }


BIASES = list(biases())


def inputs(
    queries: int, keys: int | None = None, batch: int = 2, scale: float = 1.0, heads: int = HEADS
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    lengths = queries, queries if keys is None else keys, queries if keys is None else keys
    query, key, value = (torch.randn(batch, heads, length, DIM, generator=generator) for length in lengths)
    return [query * scale, key * scale, value]


def self_mask(length: int, causal: bool, valid: Tensor | None = None, positions: Tensor | None = None) -> Mask:
    positions = torch.arange(length)[None] if positions is None else positions
    return Mask(positions, positions, causal, valid)


def phi(x: Tensor, projection: Tensor, kernel: str) -> Tensor:
    """Lemma 1 and the generalised kernel of Choromanski et al. 2021, without the factor that cancels."""
    x = x / x.shape[-1] ** 0.25
    if kernel == "relu":
        return (x @ projection.T).clamp(min=0) + RELU_OFFSET
    return torch.exp(x @ projection.T) * torch.exp(-(x.norm(dim=-1, keepdim=True) ** 2) / 2)


def equation(
    features: RandomFeatures, query: Tensor, key: Tensor, value: Tensor, mask: Mask, bias: TableBias | None
) -> Tensor:
    query, key, value = query.double(), key.double(), value.double()
    projection = features.projection.double()
    weights = phi(query, projection, features.kernel) @ phi(key, projection, features.kernel).mT
    distances = mask.key_positions[:, None, :] - mask.query_positions[:, :, None]
    if bias is not None:
        weights = weights * bias.table(distances).double().transpose(0, 1).exp()
    if mask.causal:
        weights = weights * (distances <= 0).unsqueeze(1)
    if mask.key_padding is not None:
        weights = weights * mask.key_padding[:, None, None, :]
    total = weights.sum(-1, keepdim=True)
    return torch.where(total > 0, weights @ value / total.clamp(min=1e-300), 0.0)
