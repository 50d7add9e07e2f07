"""Stochastic depth: residual branches are dropped at random during training.

Huang et al. 2016, "Deep Networks with Stochastic Depth", with the linear rule of equation 4: in layer l of L, counted
from 1, a branch is dropped with probability rate l / L.

Deviations: each sequence of a batch is dropped independently, and kept branches are divided by the probability of being
kept, so that evaluation needs no scaling (the paper drops the branch for the whole batch and scales at evaluation). The
branches of a layer are drawn independently.
"""

from jaxtyping import Float
from torch import Tensor, nn


class StochasticDepth(nn.Module):
    """Drops a residual branch for a random part of the sequences.

    Args:
        rate: the last layer's probability of being dropped, in [0, 1).
        layers: the number of layers.
    """

    def __init__(self, rate: float, layers: int) -> None:
        super().__init__()
        self.rate, self.layers = rate, layers

    def forward(self, branch: Float[Tensor, "b n d_model"], layer: int) -> Float[Tensor, "b n d_model"]:
        """The branch, or zeros; `layer` counts from 0."""
        stays = 1 - self.rate * (layer + 1) / self.layers
        if not self.training or stays == 1:
            return branch
        return branch * branch.new_empty(len(branch), 1, 1).bernoulli_(stays) / stays
