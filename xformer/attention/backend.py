"""Which of torch's kernels computes attention on a GPU: told once per kind of input, as torch chooses in silence."""

import functools
import logging
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

log = logging.getLogger(__name__)


def tell_backend(query: Tensor, key: Tensor, value: Tensor, added: Tensor | None, *, causal: bool) -> None:
    """Name the kernel in the debug log; warn where it is none of the fused ones, but writes all scores out.

    Args:
        query: as `scaled_dot_product_attention` gets it, and so are the others.
        key: likewise.
        value: likewise.
        added: the mask or bias.
        causal: whether the kernel hides later keys itself.
    """
    if not query.is_cuda or torch.compiler.is_compiling():
        return
    if _known((*_shapes(query, key, added), query.dtype, causal, query.requires_grad)):
        return
    name = chosen(query, key, value, added, causal=causal)
    _write(log.warning if name == "math" else log.debug, name, query, key, added)


def tell(name: str, query: Tensor, key: Tensor, added: Tensor | None) -> None:
    """Name a kernel that is not torch's to choose."""
    if query.is_cuda and not torch.compiler.is_compiling() and not _known((name, *_shapes(query, key, added))):
        _write(log.debug, name, query, key, added)


def chosen(query: Tensor, key: Tensor, value: Tensor, added: Tensor | None, *, causal: bool) -> str:
    """The kernel that `scaled_dot_product_attention` takes for these: flash, efficient, cudnn or math.

    It is torch's own choice, as their order differs between generations of GPUs.
    """
    choice = SDPBackend(torch._fused_sdp_choice(query, key, value, added, 0.0, causal))
    return choice.name.removesuffix("_ATTENTION").lower()


def _shapes(*tensors: Tensor | None) -> tuple[tuple[int, ...] | None, ...]:
    return tuple(None if x is None else tuple(x.shape) for x in tensors)


def _write(to: Callable[..., None], name: str, query: Tensor, key: Tensor, added: Tensor | None) -> None:
    shapes = _shapes(query, key, added)
    to("attention of queries %s and keys %s, mask %s, in %s: %s kernel", *shapes, query.dtype, name)


def _known(kind: tuple[object, ...]) -> bool:
    """Whether it was asked before."""
    before = _remember.cache_info().hits
    _remember(kind)
    return _remember.cache_info().hits > before


@functools.lru_cache(maxsize=1024)
def _remember(kind: tuple[object, ...]) -> None:
    """Nothing, once."""
