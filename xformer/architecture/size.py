"""The dimensions of a model, in one place."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from xformer.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Size:
    """Width, depth, heads and feed-forward width.

    Raises:
        ConfigError: `d_model` is not divisible by `heads`.
    """

    d_model: Annotated[int, Ge(1)]
    layers: Annotated[int, Ge(1)]
    heads: Annotated[int, Ge(1)]
    feed_forward: Annotated[int, Ge(1)]

    def __post_init__(self) -> None:
        if self.d_model % self.heads:
            below = self.d_model - self.d_model % self.heads
            near = " or ".join(str(d) for d in (below, below + self.heads) if d)
            raise ConfigError(
                f"size.d_model={self.d_model} is not divisible by size.heads={self.heads}; "
                f"size.d_model={near} would work."
            )

    @property
    def head_dim(self) -> int:
        """Features of one head."""
        return self.d_model // self.heads
