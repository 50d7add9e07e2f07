"""What attention computes in where its inputs have 16 bits: scores, weights and sums in float32, as fused kernels do.

A product of two 16-bit matrices is rounded to 16 bits before anything can scale it: in float16 scores beyond 65,504 are
infinite, in bfloat16 a score of 30 is off by up to 0.06, and so is the weight. A fused kernel keeps its scores in
float32. What computes them otherwise widens its inputs first, so that a comparison of variants in 16 bits favours none.
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
    """In float32 at least."""
    return x.float() if x.dtype in _NARROW else x  # by a look, as decoding comes by often


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Without autocast, which would round what is wide."""
    return torch.autocast(device.type, enabled=False) if autocast_enabled(device) else nullcontext()


def autocast_enabled(device: torch.device) -> bool:
    """Whether autocast is on, where there is such a thing."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def in_float32(mix: Mix) -> Mix:
    """Give a method its queries, keys and values in float32 at least; what it mixes becomes what the values were."""

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
    """Tensors of this type whose sum is x, or nearly: one where x is of it already, else x as rounded, and the rest."""
    if x.dtype == dtype:
        return [x]
    rounded = x.to(dtype)
    return [rounded, (x - rounded).to(dtype)]
