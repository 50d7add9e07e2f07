"""The dimensions of a model, in one place."""

from dataclasses import dataclass

from xformer.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Size:
    """Width, depth, heads and feed-forward width.

    Raises:
        ConfigError: a dimension is not positive, or `d_model` is not divisible by `heads`.
    """

    d_model: int
    layers: int
    heads: int
    feed_forward: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ConfigError(f"size.{name}={value} must be at least 1.")
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
