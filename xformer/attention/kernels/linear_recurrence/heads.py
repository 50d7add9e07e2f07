"""Splitting features into heads and merging them, head dimensions, and zeros at padding.

Shapes: b rows, n tokens, h heads, d features of one.
"""

from jaxtyping import Float
from torch import Tensor

from xformer.core.mask import Mask
from xformer.errors import ConfigError


def split_heads(x: Float[Tensor, "b n features"], heads: int) -> Float[Tensor, "b h n d"]:
    """Split features into heads of neighbouring features."""
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads).transpose(1, 2)


def merge_heads(x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b n features"]:
    """Merge heads: concatenate their features."""
    return x.transpose(1, 2).flatten(2)


def blank_padding(x: Float[Tensor, "b n features"], mask: Mask) -> Float[Tensor, "b n features"]:
    """Set padding to zero."""
    return x if mask.key_padding is None else x.masked_fill(~mask.key_padding[..., None], 0.0)


def scaled_head_dim(head_dim: int, path: str, scale: float) -> int:
    """The head dimension times a factor.

    Args:
        head_dim: d.
        path: of the scale in the configuration, for the message.
        scale: the factor.

    Raises:
        ConfigError: the product is not a whole number.
    """
    scaled = round(head_dim * scale)
    if scaled < 1 or abs(scaled - head_dim * scale) > 1e-6:
        raise ConfigError(
            f"{path}={scale:g} of the {head_dim} features of a head is {head_dim * scale:g}, not a whole "
            f"number; use a multiple of 1/{head_dim}, such as 1."
        )
    return scaled
