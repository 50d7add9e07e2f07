"""Precision of attention with 16-bit inputs: scores, weights and sums in float32, as in fused kernels.

A product of two 16-bit matrices is rounded to 16 bits before it can be scaled: in float16 scores beyond 65,504 are
infinite, in bfloat16 a score of 30 has an error of up to 0.06, and so has the weight. Fused kernels keep scores in
float32. Other code widens its inputs first, so that a comparison of variants in 16 bits favours none of them.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

Mix = TypeVar("Mix", bound=Callable[..., Tensor])
_NARROW = torch.float16, torch.bfloat16


def at_least_float32(x: Tensor) -> Tensor:
    """Convert to float32, or keep a wider type."""
    return x.float() if x.dtype in _NARROW else x  # by a look, as decoding comes by often


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Context manager that disables autocast, which would round float32 values."""
    return torch.autocast(device.type, enabled=False) if autocast_enabled(device) else nullcontext()


def autocast_enabled(device: torch.device) -> bool:
    """Whether autocast is enabled; False on devices without autocast."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def in_float32(mix: Mix) -> Mix:
    """Decorator that passes queries, keys and values in float32 or wider, and returns the values' own type."""

    @wraps(mix)
    def widened(self: Any, query: Tensor, key: Tensor, value: Tensor, **about: Any) -> Tensor:
        if value.dtype not in _NARROW and not autocast_enabled(value.device):
            return mix(self, query, key, value, **about)
        with without_autocast(value.device):
            return mix(self, at_least_float32(query), at_least_float32(key), at_least_float32(value), **about).to(
                value.dtype
            )

    return widened  # type: ignore[return-value]


def split_precision(x: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Split x into tensors of this type that sum to x, or nearly: x itself if it has the type, else two parts."""
    if x.dtype == dtype:
        return [x]
    rounded = x.to(dtype)
    return [rounded, (x - rounded).to(dtype)]
