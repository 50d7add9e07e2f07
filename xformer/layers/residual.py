"""The two places of the norm around a residual branch."""

from typing import Any, Generic, Literal, TypeVar

from torch import Tensor, nn

NormPlacement = Literal["pre", "post"]
Branch = TypeVar("Branch", bound=nn.Module)


class PreNorm(nn.Module, Generic[Branch]):
    """X + dropout(branch(norm(x))): the sum is never normalised, so deep stacks train without warmup (Xiong 2020)."""

    def __init__(self, d_model: int, branch: Branch, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.branch = branch
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, **about: Any) -> Tensor:
        """X + dropout(branch(norm(x)))."""
        added: Tensor = x + self.dropout(self.branch(self.norm(x), **about))
        return added


class PostNorm(PreNorm[Branch]):
    """norm(x + dropout(branch(x))): as in Vaswani et al. 2017."""

    def forward(self, x: Tensor, **about: Any) -> Tensor:
        """norm(x + dropout(branch(x)))."""
        normed: Tensor = self.norm(x + self.dropout(self.branch(x, **about)))
        return normed


def residual(norm: NormPlacement, d_model: int, branch: Branch, dropout: float) -> PreNorm[Branch]:
    """A branch with its norm in the place that goes by this name."""
    return {"pre": PreNorm, "post": PostNorm}[norm](d_model, branch, dropout)
