"""The position-wise feed-forward layer, plain and gated."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from xformer.core.linear import Linear

Activation = Literal["gelu", "relu", "swiglu"]


class FeedForward(nn.Module):
    """Feed-forward layer: W2 f(W1 x), two linear layers around an activation (Vaswani et al. 2017, equation 2)."""

    def __init__(self, d_model: int, hidden: int, activation: nn.Module, *, gain: float) -> None:
        super().__init__()
        self.expand = Linear(d_model, hidden)
        self.activation = activation
        self.contract = Linear(hidden, d_model, gain=gain)

    def forward(self, x: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length d_model"]:
        """W2 f(W1 x)."""
        contracted: Tensor = self.contract(self.activation(self.expand(x)))
        return contracted


class SwiGLU(nn.Module):
    """SwiGLU feed-forward layer: W2 (silu(W1 x) * V x), without biases (Shazeer 2020, equation 6).

    `hidden` is not rescaled: for equal parameters it must be 2/3 of a plain layer's.
    """

    def __init__(self, d_model: int, hidden: int, *, gain: float) -> None:
        super().__init__()
        self.expand = Linear(d_model, 2 * hidden, bias=False)
        self.contract = Linear(hidden, d_model, bias=False, gain=gain)

    def forward(self, x: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length d_model"]:
        """W2 (silu(W1 x) * V x)."""
        opened, passed = self.expand(x).chunk(2, dim=-1)
        contracted: Tensor = self.contract(functional.silu(opened) * passed)
        return contracted


def feed_forward(activation: Activation, d_model: int, hidden: int, *, gain: float) -> nn.Module:
    """Build the feed-forward layer with an activation of this name."""
    if activation == "swiglu":
        return SwiGLU(d_model, hidden, gain=gain)
    return FeedForward(d_model, hidden, {"gelu": nn.GELU, "relu": nn.ReLU}[activation](), gain=gain)
