"""Residual connections with the norm before or after the branch, dropout and stochastic depth."""

from typing import Any, Generic, Literal, TypeVar

from torch import Tensor, nn

from xformer.layers.stochastic_depth import StochasticDepth

NormPlacement = Literal["pre", "post"]
Branch = TypeVar("Branch", bound=nn.Module)


class PreNorm(nn.Module, Generic[Branch]):
    """Pre-norm residual connection: x + dropout(branch(norm(x))) (Xiong et al. 2020); trains without warmup.

    Args:
        norm: a norm of d_model features.
        branch: maps x to the residual.
        dropout: the rate on the output of the branch.
        depth: the stochastic depth, which drops the whole branch.
    """

    def __init__(self, norm: nn.Module, branch: Branch, dropout: float, depth: StochasticDepth) -> None:
        super().__init__()
        self.norm = norm
        self.branch = branch
        self.dropout = nn.Dropout(dropout)
        self.depth = depth

    def forward(self, x: Tensor, layer: int, /, **about: Any) -> Tensor:
        """Compute x + dropout(branch(norm(x))); `layer` sets the drop probability, `about` is passed to the branch."""
        added: Tensor = x + self._thinned(self.branch(self.norm(x), **about), layer)
        return added

    def _thinned(self, branch: Tensor, layer: int) -> Tensor:
        """Apply dropout and stochastic depth to a branch."""
        if not self.training:  # calling a module that does nothing would take a good part of a decoding step
            return branch
        thinned: Tensor = self.depth(self.dropout(branch), layer)
        return thinned


class PostNorm(PreNorm[Branch]):
    """Post-norm residual connection: norm(x + dropout(branch(x))) (Vaswani et al. 2017)."""

    def forward(self, x: Tensor, layer: int, /, **about: Any) -> Tensor:
        """norm(x + dropout(branch(x)))."""
        normed: Tensor = self.norm(x + self._thinned(self.branch(x, **about), layer))
        return normed


PLACEMENTS: dict[NormPlacement, type[PreNorm[Any]]] = {"pre": PreNorm, "post": PostNorm}
