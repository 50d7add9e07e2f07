"""Torch's scaled_dot_product_attention, exact for mixed types, with masks that fused kernels accept.

All calls of it are in this module. Torch does not say which backend it chooses (flash, efficient, cudnn, math); on a
GPU the log names it once for each kind of input, and warns about `math`, which materialises all scores.
"""

import functools
import itertools
import logging
from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.attention import SDPBackend
from torch.nn.functional import pad, scaled_dot_product_attention

from xformer.core.precision import autocast_enabled, split_precision, without_autocast

log = logging.getLogger(__name__)

ALIGNMENT = 8
"""Fused kernels on a GPU only accept masks whose rows start at multiples of this number of elements."""


def fused_attention(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    value: Float[Tensor, "b h k e"],
    attn_mask: Shaped[Tensor, "#b #h #q #k"] | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Float[Tensor, "b h q e"]:
    """softmax(scale Q K^T + B) V, in the narrowest type of queries, keys and values.

    Inputs of a wider type keep their precision: they are split into two tensors of the narrow type, concatenated along
    the features.

    Args:
        query: the queries.
        key: the keys.
        value: the values.
        attn_mask: B, in float32 or wider, or True where a query may attend; each query must attend to a key.
        is_causal: whether queries attend to no later key.
        scale: None for 1 / sqrt(d).
    """
    if query.dtype == key.dtype == value.dtype and not autocast_enabled(query.device):
        return _sdpa(query, key, value, attn_mask, is_causal, scale)
    dtype, features = _narrowest(query, key, value), value.shape[-1]
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    with without_autocast(query.device):
        mixed = _sdpa(*_in_halves(query, key, value, dtype), attn_mask, is_causal, scale)
    return mixed if mixed.shape[-1] == features else mixed.view(*mixed.shape[:-1], -1, features).sum(-2)


def _sdpa(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, is_causal: bool, scale: float | None
) -> Tensor:
    if not query.is_cpu:
        attn_mask = None if attn_mask is None else align_mask(attn_mask, query.dtype)
        _log_backend(query, key, value, attn_mask, is_causal=is_causal)
    return scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, is_causal=is_causal, scale=scale)


def _narrowest(*tensors: Tensor) -> torch.dtype:
    """The type to compute in: the narrowest, or autocast's."""
    types, device = {x.dtype for x in tensors}, tensors[0].device
    if types == {torch.float32} and autocast_enabled(device):
        return torch.get_autocast_dtype(device.type)
    return min(types, key=lambda dtype: dtype.itemsize)


def _in_halves(query: Tensor, key: Tensor, value: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Convert all to one type by splitting wider ones along the features, which keeps scores and weighted sums."""
    if query.dtype == key.dtype == value.dtype:
        return query.to(dtype), key.to(dtype), value.to(dtype)
    pairs = list(itertools.product(split_precision(query, dtype), split_precision(key, dtype)))
    left, right = (torch.cat(x, dim=-1) for x in zip(*pairs, strict=True))
    mixed = torch.cat(split_precision(value, dtype), dim=-1)
    most = max(left.shape[-1], mixed.shape[-1])
    left, right, mixed = (pad(x, (0, most - x.shape[-1])) for x in (left, right, mixed))
    return left, right, mixed


def align_mask(attn_mask: Shaped[Tensor, "*shape k"], dtype: torch.dtype) -> Float[Tensor, "*shape k"]:
    """Convert a bias or mask to the form of a GPU's fused kernels: additive, of the type, in aligned rows.

    Softmax is invariant to a constant added to a row, so the maximum of each row is shifted to 0, where 16 bits round
    least.
    """
    if attn_mask.dtype == torch.bool:
        attn_mask = attn_mask.new_zeros(attn_mask.shape, dtype=dtype).masked_fill(~attn_mask, float("-inf"))
    elif attn_mask.dtype != dtype:
        attn_mask = (attn_mask - attn_mask.detach().amax(dim=-1, keepdim=True)).to(dtype)
    if attn_mask.stride(-1) == 1 and not any(stride % ALIGNMENT for stride in attn_mask.stride()[:-1]):
        return attn_mask
    keys = attn_mask.shape[-1]
    return pad(attn_mask, (0, -keys % ALIGNMENT or ALIGNMENT))[..., :keys]


def backend(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, *, is_causal: bool) -> str:
    """The backend that `scaled_dot_product_attention` chooses for these inputs: flash, efficient, cudnn or math.

    Asks torch, because the order of preference differs between generations of GPUs.
    """
    choice = SDPBackend(torch._fused_sdp_choice(query, key, value, attn_mask, 0.0, is_causal))
    return choice.name.removesuffix("_ATTENTION").lower()


def _log_backend(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, *, is_causal: bool) -> None:
    """Name torch's choice in the debug log; warn if it is not a fused kernel."""
    if not query.is_cuda or torch.compiler.is_compiling():
        return
    # Determined for every length, because the choice may change at any length.
    if _first_time((*_shapes(query, key, attn_mask), query.dtype, is_causal, query.requires_grad)):
        name = backend(query, key, value, attn_mask, is_causal=is_causal)
        log_kernel(name, query, key, attn_mask, to=log.warning if name == "math" else log.debug)


def log_kernel(
    name: str, query: Tensor, key: Tensor, attn_mask: Tensor | None, *, to: Callable[..., None] = log.debug
) -> None:
    """Log which kernel computes attention, once for each kind of input; lengths and batch sizes do not matter.

    Args:
        name: the kernel.
        query: the queries.
        key: the keys.
        attn_mask: the mask or bias.
        to: the logging function.
    """
    if torch.compiler.is_compiling() or not _first_time((name, _kind(query, attn_mask))):
        return
    shapes = _shapes(query, key, attn_mask)
    to("attention of queries %s and keys %s, mask %s, in %s: %s kernel", *shapes, query.dtype, name)


def _kind(query: Float[Tensor, "b h q d"], attn_mask: Tensor | None) -> tuple[object, ...]:
    """The properties that decide the kernel, without lengths: one query or many, features, type, mask or none."""
    trained = query.requires_grad, attn_mask is not None and attn_mask.requires_grad
    return query.device, query.dtype, query.shape[-1], query.shape[2] > 1, attn_mask is not None, *trained


def _shapes(*tensors: Tensor | None) -> tuple[tuple[int, ...] | None, ...]:
    return tuple(None if x is None else tuple(x.shape) for x in tensors)


def _first_time(what: tuple[object, ...]) -> bool:
    """Whether this is the first call with this argument."""
    before = _remember.cache_info().misses
    _remember(what)
    return _remember.cache_info().misses > before


@functools.lru_cache(maxsize=4096)
def _remember(what: tuple[object, ...]) -> None:
    """Do nothing; the cache remembers the argument."""
