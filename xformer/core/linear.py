"""The linear layer with this project's initialisation."""

from torch import nn


class Linear(nn.Linear):
    """y = W x + b with W ~ N(0, gain^2 / fan_in) and b = 0: unit-variance inputs give unit-variance outputs.

    Args:
        fan_in: input features.
        fan_out: output features.
        bias: whether to add b.
        gain: scales W; layers that end a residual branch use `depth ** -0.5` to keep the variance of a deep sum.
    """

    def __init__(self, fan_in: int, fan_out: int, *, bias: bool = True, gain: float = 1.0) -> None:
        self.gain = gain
        super().__init__(fan_in, fan_out, bias=bias)

    def reset_parameters(self) -> None:
        """Reinitialise W and set b to zero."""
        nn.init.normal_(self.weight, std=self.gain * self.in_features**-0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
