"""Block-sparse attention on a GPU: torch's flex_attention under a rule that says which pairs count.

Dong et al. 2024, "Flex Attention: A Programming Model for Generating Optimized Attention Kernels". Blocks without a
pair that counts are skipped, and those where all pairs count are not asked about single ones:

    softmax(Q K^T / sqrt(d) + B) V over {j : counts(head, i, j)}

Which blocks these are is found by asking about all pairs, O(n^2) answers in memory O(n), once for a rule and a length:
layers of one rule share them. Time and memory of the attention itself are those of the pairs in blocks that count.

It needs CUDA and a compiler, and gives way to `block_sparse.py` for a bias that depends on the query, one whose table
is being trained (the kernel would add up its gradient atomically, in a different order each time) and float64.

Full attention with a bias of the distance takes the same kernel, which makes no n x n tensor: `attend_to_all`.

Shapes: b batch, h heads, n positions filled up to whole blocks, d features of one head.
"""

import copy
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

from xformer.attention.block_sparse_layout import Tokens
from xformer.attention.pattern import Rule
from xformer.core.bias import RelativeBias, TableBias
from xformer.core.mask import Mask
from xformer.core.sdpa import log_kernel

BLOCK = 128
"""Queries and keys of a block: the kernel's own size."""
FEWEST_FEATURES = 16
"""The kernel takes no smaller head."""
SHORTEST = 1024
"""Tokens from which on full attention with a bias is worth a compilation."""
KINDS = 64
"""Of rules, lengths and types that are kept compiled; torch would go on uncompiled, in quadratic memory, after 8."""


def applies(query: Float[Tensor, "b h n d"], bias: RelativeBias | None, *, unordered: bool = False) -> bool:
    """Whether the kernel can do it; not while FLOPs are counted, as what is compiled shows none.

    Args:
        query: of the tokens.
        bias: what is added.
        unordered: whether the gradient of a table may be added up in any order.
    """
    if not query.is_cuda or query.dtype == torch.float64 or not _can_compile():
        return False
    if bias is None:
        return True
    if not isinstance(bias, TableBias):
        return False
    return unordered or not bias.table(torch.zeros(1, dtype=torch.long, device=query.device)).requires_grad


def applies_to_all(query: Float[Tensor, "b h n d"], mask: Mask, bias: RelativeBias | None) -> bool:
    """Whether `attend_to_all` can do it, and it pays: a short sequence's n x n tensor costs less than a compilation.

    The gradient of a table is added up in any order, as torch's fused kernels do with that of the queries, unless
    `torch.use_deterministic_algorithms` forbids it.
    """
    if bias is None or query.shape[2] < SHORTEST or not mask.aligned or mask.starts is None:
        return False
    return applies(query, bias, unordered=not torch.are_deterministic_algorithms_enabled())


def attend_to_all(
    query: Float[Tensor, "b h n d"],
    key: Float[Tensor, "b h n d"],
    value: Float[Tensor, "b h n d"],
    *,
    mask: Mask,
    bias: TableBias,
) -> Float[Tensor, "b h n d"]:
    """softmax(Q K^T / sqrt(d) + B) V over all allowed keys, blank at padding; zeros where there are none."""
    length = query.shape[2]
    positions = torch.arange(length, device=query.device)
    tokens = Tokens(query, key, value, positions, positions, mask.key_padding, length)
    rule = _NOT_AFTER if mask.causal else _ALL
    mixed: Tensor = attend(tokens, lambda length: rule, bias)
    return mixed


_ALL = Rule("all", lambda head, query, key: key >= 0)
_NOT_AFTER = Rule("not after", lambda head, query, key: key <= query)


@torch.compiler.disable  # type: ignore[untyped-decorator]  # a compiled model calls what is compiled here
def attend(tokens: Tokens, rule: Callable[[int], Rule], bias: TableBias | None) -> Float[Tensor, "b h span d"]:
    """softmax(Q K^T / sqrt(d) + B) V over the keys that the rule allows; zeros where there are none.

    Args:
        tokens: at positions 0, 1, 2, ...
        rule: which pairs of so many positions count.
        bias: what is added.
    """
    query, key, value = tokens.query, tokens.key, tokens.value
    if torch.is_autocast_enabled(query.device.type):
        query, key, value = (x.to(torch.get_autocast_dtype(x.device.type)) for x in (query, key, value))
    span, features = tokens.span, query.shape[3]
    length = whole_length(span)
    # Filled up here: the kernel's gradients were NaN where a length was none of whole blocks (pytorch issue 153799).
    fill = (0, max(0, FEWEST_FEATURES - features), 0, length - span)
    if any(fill):
        query, key, value = (pad(x, fill) for x in (query, key, value))
    mask = block_mask(rule(length), span, length, query.device, tokens.real)
    log_kernel("flex_attention", query, key, None)
    kernel = _compiled()
    mixed: Tensor = kernel(query, key, value, _added(bias, span, length, query.device), mask, scale=features**-0.5)
    return mixed[:, :, :span, :features]


def whole_length(span: int) -> int:
    """The length to compute on: whole blocks, and few different lengths, as each is compiled for; fillers are skipped.

    At most an eighth is added beyond whole blocks.
    """
    step = max(BLOCK, 1 << max(0, (span - 1).bit_length() - 4))
    return -(-span // step) * step


def block_mask(
    rule: Rule, span: int, length: int, device: torch.device, real: Bool[Tensor, "#b span"] | None
) -> BlockMask:
    """Which blocks count, and which pairs in them; padding differs from batch to batch and is asked pair by pair."""
    mask: BlockMask = _blocks(rule, span, length, device, real is not None)
    if real is not None:
        mask = copy.copy(mask)  # whose blocks are the same
        mask.mask_mod = _counts(rule, pad(real, (0, length - span)))
    return mask


@lru_cache(maxsize=KINDS)
def _blocks(rule: Rule, span: int, length: int, device: torch.device, padded: bool) -> BlockMask:
    with torch.inference_mode(False), torch.no_grad():  # the first to ask may be a validation, the next a training
        positions = torch.arange(length, device=device)
        heads, real = torch.arange(rule.heads, device=device)[:, None, None], positions < span
        parts: list[tuple[Tensor, Tensor]] = []
        for queries in positions.view(-1, BLOCK):
            counts = rule.counts(heads, queries[:, None], positions) & real[queries, None] & real
            blocks = counts.expand(rule.heads, BLOCK, length).view(rule.heads, BLOCK, -1, BLOCK)
            parts.append((blocks.any(dim=3).any(dim=1), blocks.all(dim=3).all(dim=1)))
        some, every = (torch.stack(part, dim=1)[None] for part in zip(*parts, strict=True))  # 1 h blocks blocks
        count, which = _numbers(some if padded else some & ~every)
        full = (None, None) if padded else _numbers(every)
        mask_mod = _counts(rule, None if span == length else real[None])
        return BlockMask.from_kv_blocks(count, which, full[0], full[1], BLOCK_SIZE=BLOCK, mask_mod=mask_mod)


def _numbers(blocks: Bool[Tensor, "1 h blocks blocks"]) -> tuple[Tensor, Tensor]:
    """How many key blocks each query block reads, and which: those first, in order."""
    order = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(dim=-1, dtype=torch.int32), order.to(torch.int32)


def _counts(rule: Rule, real: Tensor | None) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    counts = rule.counts
    if real is None:
        return lambda row, head, query, key: counts(head, query, key)
    if len(real) == 1:
        return lambda row, head, query, key: counts(head, query, key) & real[0, key]
    return lambda row, head, query, key: counts(head, query, key) & real[row, key]


def _added(
    bias: TableBias | None, span: int, length: int, device: torch.device
) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor] | None:
    """What is added to a score: from slopes where the bias has them, which reads nothing, else from its table."""
    if bias is None:
        return None
    if bias.slopes is not None:
        slopes = bias.slopes.float()
        return lambda score, row, head, query, key: score - slopes[head] * (key - query).abs()
    last = length - 1
    distances = torch.arange(1 - span, span, device=device)
    table = pad(bias.table(distances).float(), (length - span, length - span))
    return lambda score, row, head, query, key: score + table[head, key - query + last]


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Any]:
    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, KINDS)
    # Of a length that may vary, gradients have been NaN (pytorch issue 186775); so each is compiled for itself.
    return torch.compile(flex_attention, dynamic=False)


def _can_compile() -> bool:
    if torch.compiler.is_compiling():
        return True
    return not is_in_torch_dispatch_mode() and _compiles()


@lru_cache(maxsize=1)
def _compiles() -> bool:
    """Whether the compiler that a kernel needs is there: Triton, and a C compiler for what starts it."""
    return has_triton() and any(shutil.which(name) for name in (os.environ.get("CC", "cc"), "gcc", "clang"))
