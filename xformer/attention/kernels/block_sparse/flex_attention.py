"""Attention by torch's flex_attention on a GPU (Dong et al. 2024), for a mask_mod and a bias of the distance.

"Flex Attention: A Programming Model for Generating Optimized Attention Kernels" takes the mask_mod itself. Blocks in
which no pair is allowed are skipped, and those in which all pairs are allowed are not masked pair by pair. The blocks
are found by evaluating all pairs, O(n^2) booleans in memory O(n), once for a mask_mod and a length: layers of one
pattern share them. It needs CUDA and a compiler, and leaves to the kernels of the CPU a bias that depends on the query,
one whose table is being trained (its gradient would be added up atomically, in a different order each time) and
float64. Full attention with a bias of the distance uses the same kernel, which makes no n x n tensor:
`flex_dense_attention`.

Shapes: b batch, h heads, n positions filled up to whole blocks, d features of one head.
"""

import copy
import logging
import os
import shutil
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import pad
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torch.utils._triton import has_triton

from xformer.attention.kernels.block_sparse.block_attention import (
    AttentionInput,
    MaskMod,
    causal_mask_mod,
    full_mask_mod,
)
from xformer.core.bias import RelativeBias, TableBias
from xformer.core.mask import Mask

log = logging.getLogger(__name__)

BLOCK = 128
"""Queries and keys of a block of flex_attention: the kernel's own size."""
FEWEST_FEATURES = 16
"""The smallest head that flex_attention supports."""
SHORTEST = 1024
"""The minimum number of tokens for which compiling full attention with a bias pays."""
KINDS = 64
"""The number of compiled variants to keep; after 8 torch would run uncompiled, in quadratic memory."""


def flex_supports(query: Float[Tensor, "b h n d"], bias: RelativeBias | None, *, unordered: bool = False) -> bool:
    """Whether flex_attention supports the inputs; False while FLOPs are counted, as compiled kernels report none.

    Args:
        query: the queries.
        bias: the relative bias.
        unordered: whether the gradient of a table may be summed in any order.
    """
    if not query.is_cuda or query.dtype == torch.float64 or not _can_compile():
        return False
    if bias is None:
        return True
    if not isinstance(bias, TableBias):
        return False
    return unordered or not bias.table(torch.zeros(1, dtype=torch.long, device=query.device)).requires_grad


def flex_supports_dense(query: Float[Tensor, "b h n d"], mask: Mask, bias: RelativeBias | None) -> bool:
    """Whether `flex_dense_attention` supports the inputs and pays: below a length, compiling costs more than n x n.

    The gradient of a table is added up in any order, as torch's fused kernels do with that of the queries, unless
    `torch.use_deterministic_algorithms` forbids it.
    """
    if bias is None or query.shape[2] < SHORTEST or not mask.aligned or mask.starts is None:
        return False
    return flex_supports(query, bias, unordered=not torch.are_deterministic_algorithms_enabled())


def flex_dense_attention(
    query: Float[Tensor, "b h n d"],
    key: Float[Tensor, "b h n d"],
    value: Float[Tensor, "b h n d"],
    *,
    mask: Mask,
    bias: TableBias,
) -> Float[Tensor, "b h n d"]:
    """Dense attention, softmax(Q K^T / sqrt(d) + B) V; zeros for padded queries and those without a key."""
    length = query.shape[2]
    positions = torch.arange(length, device=query.device)
    tokens = AttentionInput(query, key, value, positions, positions, mask.key_padding, length)
    mixed: Tensor = flex_block_attention(tokens, causal_mask_mod if mask.causal else full_mask_mod, bias)
    return mixed


@torch.compiler.disable  # type: ignore[untyped-decorator]  # a compiled model calls what is compiled here
def flex_block_attention(
    tokens: AttentionInput, mask_mod: MaskMod, bias: TableBias | None
) -> Float[Tensor, "b h span d"]:
    """Block-sparse attention, softmax(Q K^T / sqrt(d) + B) V, over the pairs that a mask_mod allows.

    Args:
        tokens: tokens at positions 0, 1, 2, ...
        mask_mod: a mask_mod of positions below their `padded_length`.
        bias: the relative bias.
    """
    query, key, value = tokens.query, tokens.key, tokens.value
    if torch.is_autocast_enabled(query.device.type):
        query, key, value = (x.to(torch.get_autocast_dtype(x.device.type)) for x in (query, key, value))
    span, features = tokens.span, query.shape[3]
    length = padded_length(span)
    # Pad here: the kernel's gradients were NaN for lengths that are not whole blocks (pytorch issue 153799).
    fill = (0, max(0, FEWEST_FEATURES - features), 0, length - span)
    if any(fill):
        query, key, value = (pad(x, fill) for x in (query, key, value))
    mask = block_mask(mask_mod, query.shape[1], span, length, query.device, tokens.valid)
    added = _score_mod(bias, span, length, query.device)
    _log_once(query.device, query.dtype, features)
    kernel = _compiled()
    mixed: Tensor = kernel(query, key, value, added, mask, scale=features**-0.5)
    return mixed[:, :, :span, :features]


def padded_length(span: int) -> int:
    """Round a length up to whole blocks and to one of few lengths, as each length is compiled separately.

    At most an eighth is added beyond whole blocks.
    """
    step = max(BLOCK, 1 << max(0, (span - 1).bit_length() - 4))
    return -(-span // step) * step


def block_mask(
    mask_mod: MaskMod, heads: int, span: int, length: int, device: torch.device, valid: Bool[Tensor, "#b span"] | None
) -> BlockMask:
    """The block mask of a mask_mod; padding, which differs between batches, is masked pair by pair."""
    mask: BlockMask = _blocks(mask_mod, heads, span, length, device, valid is not None)
    if valid is not None:
        mask = copy.copy(mask)  # whose blocks are the same
        mask.mask_mod = _with_padding(mask_mod, pad(valid, (0, length - span)))
    return mask


@lru_cache(maxsize=KINDS)
def _blocks(mask_mod: MaskMod, heads: int, span: int, length: int, device: torch.device, padded: bool) -> BlockMask:
    """The block mask without padding; for one head if all heads have the same blocks."""
    with torch.inference_mode(False), torch.no_grad():  # the first call may be a validation's, the next a training's
        positions = torch.arange(length, device=device)
        head, valid = torch.arange(heads, device=device)[:, None, None], positions < span
        parts: list[tuple[Tensor, Tensor]] = []
        for queries in positions.view(-1, BLOCK):
            allowed = mask_mod(head, queries[:, None], positions) & valid[queries, None] & valid
            blocks = allowed.view(-1, BLOCK, length // BLOCK, BLOCK)
            parts.append((blocks.any(dim=3).any(dim=1), blocks.all(dim=3).all(dim=1)))
        some, every = (torch.stack(part, dim=1)[None] for part in zip(*parts, strict=True))  # 1 #h blocks blocks
        count, which = _numbers(some if padded else some & ~every)
        full = (None, None) if padded else _numbers(every)
        pairs = _with_padding(mask_mod, None if span == length else valid[None])
        return BlockMask.from_kv_blocks(count, which, full[0], full[1], BLOCK_SIZE=BLOCK, mask_mod=pairs)


def _numbers(blocks: Bool[Tensor, "1 h blocks blocks"]) -> tuple[Tensor, Tensor]:
    """The number of key blocks that each query block reads, and their indices, in order."""
    order = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(dim=-1, dtype=torch.int32), order.to(torch.int32)


def _with_padding(mask_mod: MaskMod, valid: Tensor | None) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """A mask_mod with flex_attention's signature, which also masks each batch row's padding."""
    if valid is None:
        return lambda row, head, query, key: mask_mod(head, query, key)
    if len(valid) == 1:
        return lambda row, head, query, key: mask_mod(head, query, key) & valid[0, key]
    return lambda row, head, query, key: mask_mod(head, query, key) & valid[row, key]


def _score_mod(
    bias: TableBias | None, span: int, length: int, device: torch.device
) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor] | None:
    """The score_mod of a bias: computed from slopes if the bias has them, else read from its table."""
    if bias is None:
        return None
    if bias.slopes is not None:
        slopes = bias.slopes.float()
        return lambda score, row, head, query, key: score - slopes[head] * (key - query).abs()
    last = length - 1
    distances = torch.arange(1 - span, span, device=device)
    table = pad(bias.table(distances).float(), (length - span, length - span))
    return lambda score, row, head, query, key: score + table[head, key - query + last]


@lru_cache(maxsize=KINDS)
def _log_once(device: torch.device, dtype: torch.dtype, features: int) -> None:
    log.debug("attention of heads of %s features, in %s, on %s: flex_attention kernel", features, dtype, device)


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Any]:
    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, KINDS)
    # With dynamic lengths gradients have been NaN (pytorch issue 186775), so each length is compiled separately.
    return torch.compile(flex_attention, dynamic=False)


def _can_compile() -> bool:
    if torch.compiler.is_compiling():
        return True
    return not is_in_torch_dispatch_mode() and _compiles()


@lru_cache(maxsize=1)
def _compiles() -> bool:
    """Whether the compilers that flex_attention needs are installed: Triton and a C compiler."""
    return has_triton() and any(shutil.which(name) for name in (os.environ.get("CC", "cc"), "gcc", "clang"))
