"""The residual branch: the two places of its norm, its dropout and its stochastic depth."""

from typing import Any, Generic, Literal, TypeVar

from torch import Tensor, nn

from xformer.layers.stochastic_depth import StochasticDepth

NormPlacement = Literal["pre", "post"]
Branch = TypeVar("Branch", bound=nn.Module)


class PreNorm(nn.Module, Generic[Branch]):
    """X + dropout(branch(norm(x))): the sum is never normalised, so deep stacks train without warmup (Xiong 2020).

    Args:
        norm: of d_model features.
        branch: from x to what is added to it.
        dropout: rate on what the branch gives.
        depth: drops the whole branch.
    """

    def __init__(self, norm: nn.Module, branch: Branch, dropout: float, depth: StochasticDepth) -> None:
        super().__init__()
        self.norm = norm
        self.branch = branch
        self.dropout = nn.Dropout(dropout)
        self.depth = depth

    def forward(self, x: Tensor, layer: int, /, **about: Any) -> Tensor:
        """X + dropout(branch(norm(x))); `layer` decides how often the branch is dropped, `about` goes to it."""
        added: Tensor = x + self._thinned(self.branch(self.norm(x), **about), layer)
        return added

    def _thinned(self, branch: Tensor, layer: int) -> Tensor:
        """What is left of a branch while training."""
        if not self.training:  # where a call of a module that does nothing would be a good part of a decoding step
            return branch
        thinned: Tensor = self.depth(self.dropout(branch), layer)
        return thinned


class PostNorm(PreNorm[Branch]):
    """norm(x + dropout(branch(x))): as in Vaswani et al. 2017."""

    def forward(self, x: Tensor, layer: int, /, **about: Any) -> Tensor:
        """norm(x + dropout(branch(x)))."""
        normed: Tensor = self.norm(x + self._thinned(self.branch(x, **about), layer))
        return normed


PLACEMENTS: dict[NormPlacement, type[PreNorm[Any]]] = {"pre": PreNorm, "post": PostNorm}
