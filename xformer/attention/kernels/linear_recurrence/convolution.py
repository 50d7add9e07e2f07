r"""A causal depthwise convolution over a few tokens, which skips padding.

    y_i = sum_j w_(width - 1 - j) * x_(i - j) + bias,     j = 0 ... width - 1

over the tokens that are not padding: i - j means the j-th such token before i, wherever padding stands between them;
before the first there are zeros. The last of w is the token's own, as in PyTorch's Conv1d. Time and memory O(n c) for
c features. While decoding, the last width - 1 tokens are remembered.

Shapes: b rows, n tokens, c features, w the width.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from xformer.core.precision import at_least_float32


class ShortConvolution(nn.Module):
    """A depthwise causal convolution, in float32 at least.

    Its weights are a vector per feature, (c, 1, w) as in PyTorch, so the optimiser does not decay them.

    Args:
        features: the number of features c.
        width: the number of tokens that each output reads, including its own.
        bias: whether to add a bias.
    """

    def __init__(self, features: int, width: int, *, bias: bool = False) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.empty(features, 1, width))
        self.bias = nn.Parameter(torch.empty(features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw from U(-1 / sqrt(w), 1 / sqrt(w)), as PyTorch's Conv1d does, and so the papers."""
        bound = self.width**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(
        self, x: Float[Tensor, "b n c"], valid: Bool[Tensor, "b n"] | None, past: Float[Tensor, "b before c"] | None
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b before c"]]:
        """The convolved sequence, zeros at padding, and the last w - 1 tokens.

        Args:
            x: the sequence, finite at padding.
            valid: False at padding; None without padding.
            past: the w - 1 tokens before the first; None for zeros.
        """
        x, weight = at_least_float32(x), at_least_float32(self.weight).squeeze(1)
        length, before = x.shape[1], self.width - 1
        if valid is not None:
            x = _gather(x, (~valid).long().argsort(dim=1, stable=True))  # what is not padding comes first
        past = x.new_zeros(len(x), before, x.shape[2]) if past is None else past
        tokens = torch.cat((past, x), dim=1)
        y = sum(weight[:, j] * tokens[:, j : j + length] for j in range(self.width))
        assert isinstance(y, Tensor)
        if self.bias is not None:
            y = y + at_least_float32(self.bias)
        if valid is None:
            return y, tokens[:, length:]
        place = valid.long().cumsum(dim=1)
        last = valid.sum(dim=1, keepdim=True) + torch.arange(before, device=x.device)
        return _gather(y, (place - 1).clamp(min=0)).masked_fill(~valid[..., None], 0.0), _gather(tokens, last)


def _gather(x: Tensor, positions: Tensor) -> Tensor:
    return x.gather(1, positions[..., None].expand(-1, -1, x.shape[2]))
