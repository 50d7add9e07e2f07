"""Which of torch's kernels computes attention on a GPU: told once per kind of input, as torch chooses in silence."""

import functools
import logging

import torch
from torch import Tensor
from torch.backends import cuda

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
    shapes = tuple(query.shape), tuple(key.shape), None if added is None else tuple(added.shape)
    if _known((*shapes, query.dtype, causal, query.requires_grad)):
        return
    name = chosen(cuda.SDPAParams(query, key, value, added, 0.0, causal, False))
    tell = log.warning if name == "math" else log.debug
    tell("attention of queries %s and keys %s, mask %s, in %s: %s kernel", *shapes, query.dtype, name)


def chosen(parameters: cuda.SDPAParams) -> str:
    """The first kernel that may be used."""
    if cuda.can_use_flash_attention(parameters):
        return "flash"
    if cuda.can_use_efficient_attention(parameters):
        return "efficient"
    return "cudnn" if cuda.can_use_cudnn_attention(parameters) else "math"


def _known(kind: tuple[object, ...]) -> bool:
    """Whether it was asked before."""
    before = _remember.cache_info().hits
    _remember(kind)
    return _remember.cache_info().hits > before


@functools.lru_cache(maxsize=1024)
def _remember(kind: tuple[object, ...]) -> None:
    """Nothing, once."""
