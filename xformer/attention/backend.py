"""Torch's fused kernel of softmax attention: called here alone, with what it needs to be exact and to be taken at all.

Which kernel that is on a GPU torch chooses in silence, so it is told, once for each kind of input.
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

from xformer.core.precision import as_they_are, autocasts, halves

log = logging.getLogger(__name__)

ALIGNMENT = 8
"""Numbers: fused kernels on a GPU take a mask whose rows begin at multiples of it, and no other."""


def fused(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    value: Float[Tensor, "b h k e"],
    added: Shaped[Tensor, "#b #h #q #k"] | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> Float[Tensor, "b h q e"]:
    """softmax(scale Q K^T + B) V.

    What is wider than the narrowest of queries, keys and values is no more rounded than scores are: the kernel gets it
    in two halves, one after the other along the features. The result is of the narrowest type.

    Args:
        query: the products' left side.
        key: their right side.
        value: what is mixed.
        added: B, in float32 at least, or a mask that is True where a query may read; every query reads something.
        causal: whether a query reads no key after it.
        scale: None for 1 / sqrt(d).
    """
    if query.dtype == key.dtype == value.dtype and not autocasts(query.device):
        return _call(query, key, value, added, causal, scale)
    narrow, features = _narrowest(query, key, value), value.shape[-1]
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    with as_they_are(query.device):
        mixed = _call(*_in_halves(query, key, value, narrow), added, causal, scale)
    return mixed if mixed.shape[-1] == features else mixed.view(*mixed.shape[:-1], -1, features).sum(-2)


def _call(query: Tensor, key: Tensor, value: Tensor, added: Tensor | None, causal: bool, scale: float | None) -> Tensor:
    if not query.is_cpu:
        added = None if added is None else aligned(added, query.dtype)
        _tell_chosen(query, key, value, added, causal=causal)
    return scaled_dot_product_attention(query, key, value, attn_mask=added, is_causal=causal, scale=scale)


def _narrowest(*tensors: Tensor) -> torch.dtype:
    """The type to compute in: that of the fewest bits, or autocast's."""
    types, device = {x.dtype for x in tensors}, tensors[0].device
    if types == {torch.float32} and autocasts(device):
        return torch.get_autocast_dtype(device.type)
    return min(types, key=lambda dtype: dtype.itemsize)


def _in_halves(query: Tensor, key: Tensor, value: Tensor, narrow: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """All of one type, with as many features in each; scores and the sums of what is mixed are as they were."""
    if query.dtype == key.dtype == value.dtype:
        return query.to(narrow), key.to(narrow), value.to(narrow)
    pairs = list(itertools.product(halves(query, narrow), halves(key, narrow)))
    left, right = (torch.cat(x, dim=-1) for x in zip(*pairs, strict=True))
    mixed = torch.cat(halves(value, narrow), dim=-1)
    most = max(left.shape[-1], mixed.shape[-1])
    left, right, mixed = (pad(x, (0, most - x.shape[-1])) for x in (left, right, mixed))
    return left, right, mixed


def aligned(added: Shaped[Tensor, "*shape k"], dtype: torch.dtype) -> Float[Tensor, "*shape k"]:
    """A bias or mask as a GPU's fused kernels take it: a number of the type for each pair, in aligned rows.

    What all keys of a query have in common is nothing to a softmax, so the largest of each row becomes 0: there, where
    it matters, 16 bits round least.
    """
    if added.dtype == torch.bool:
        added = added.new_zeros(added.shape, dtype=dtype).masked_fill(~added, float("-inf"))
    elif added.dtype != dtype:
        added = (added - added.detach().amax(dim=-1, keepdim=True)).to(dtype)
    if added.stride(-1) == 1 and not any(stride % ALIGNMENT for stride in added.stride()[:-1]):
        return added
    keys = added.shape[-1]
    return pad(added, (0, -keys % ALIGNMENT or ALIGNMENT))[..., :keys]


def _tell_chosen(query: Tensor, key: Tensor, value: Tensor, added: Tensor | None, *, causal: bool) -> None:
    """Name the kernel in the debug log; warn where it is none of the fused ones, but writes all scores out."""
    if not query.is_cuda or torch.compiler.is_compiling():
        return
    # Asked for every length, since any may be the first that another kernel is taken for.
    if _is_new((*_shapes(query, key, added), query.dtype, causal, query.requires_grad)):
        name = chosen(query, key, value, added, causal=causal)
        tell(name, query, key, added, to=log.warning if name == "math" else log.debug)


def tell(name: str, query: Tensor, key: Tensor, added: Tensor | None, *, to: Callable[..., None] = log.debug) -> None:
    """Name the kernel that attention takes, once for each kind of input: lengths and batches make no kind of their own.

    Args:
        name: the kernel.
        query: what it gets.
        key: likewise.
        added: the mask or bias.
        to: writes it to the log.
    """
    if torch.compiler.is_compiling() or not _is_new((name, kind(query, added))):
        return
    shapes = _shapes(query, key, added)
    to("attention of queries %s and keys %s, mask %s, in %s: %s kernel", *shapes, query.dtype, name)


def kind(query: Float[Tensor, "b h q d"], added: Tensor | None) -> tuple[object, ...]:
    """What a kernel is chosen by, but for lengths: one query or many, features, type, whether there is a mask."""
    trained = query.requires_grad, added is not None and added.requires_grad
    return query.device, query.dtype, query.shape[-1], query.shape[2] > 1, added is not None, *trained


def chosen(query: Tensor, key: Tensor, value: Tensor, added: Tensor | None, *, causal: bool) -> str:
    """The kernel that `scaled_dot_product_attention` takes for these: flash, efficient, cudnn or math.

    It is torch's own choice, as their order differs between generations of GPUs.
    """
    choice = SDPBackend(torch._fused_sdp_choice(query, key, value, added, 0.0, causal))
    return choice.name.removesuffix("_ATTENTION").lower()


def _shapes(*tensors: Tensor | None) -> tuple[tuple[int, ...] | None, ...]:
    return tuple(None if x is None else tuple(x.shape) for x in tensors)


def _is_new(what: tuple[object, ...]) -> bool:
    """Whether it is asked for the first time."""
    before = _remember.cache_info().misses
    _remember(what)
    return _remember.cache_info().misses > before


@functools.lru_cache(maxsize=4096)
def _remember(what: tuple[object, ...]) -> None:
    """Nothing, once."""
