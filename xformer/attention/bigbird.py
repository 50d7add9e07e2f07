r"""BigBird: global, neighbouring and random blocks.

Zaheer et al. 2020, "Big Bird: Transformers for Longer Sequences", section 2 and appendix D (ITC, the internal
construction). With the sequence cut into blocks of b tokens, a query in block i reads every token of

    the first `global_blocks` blocks,
    the `window_blocks` blocks around i, its own in the middle,
    `random_blocks` more, drawn once per head and block among all that are left,

and a query in one of the global blocks reads everything:

    Attention(Q, K, V)_i = softmax over these (q_i K^T / sqrt(d) + B) V

with B an optional relative bias. The blocks are a set: each key counts once. The causal form, which the paper does not
define, is the same intersected with j <= i, and draws the random blocks among those before the window: the global
tokens are read by all later ones, and read what is before them.

Time and memory O(n b (global + window + random)) and O(n b global) for the global rows, which is linear in n.

The draws are a buffer that is saved with the weights; they come from the seed through `reset_parameters`. Block i's
random blocks do not depend on the length of a batch: they are drawn among the blocks of the longest sequence the model
is built for, and a shorter sequence goes without those beyond its end. Past that length a block draws among those up
to itself, from the numbers of the block that many places before it. The causal form always draws among earlier blocks.

Deviations from the authors' code: any length; random blocks everywhere; the window does not wrap around the ends; block
0 counts once; heads always differ; dropout acts on the mixed values (see `AttentionContext`). A bias that depends
on the query is evaluated once per head, since it has no distances per head.

Not supported: cross-attention. The window compares positions, and those of two sequences do not correspond.
"""

from functools import lru_cache
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from jaxtyping import Float, Int
from torch import Tensor

from xformer.attention.base import AttentionContext
from xformer.attention.kernels.block_sparse.attention import BlockSparseAttention
from xformer.attention.kernels.block_sparse.block_attention import (
    AttentionInput,
    BlockLayout,
    MaskMod,
    block_attention,
    causal_mask_mod,
    full_mask_mod,
    with_causality,
)
from xformer.core.bias import RelativeBias
from xformer.core.capability import Capability
from xformer.errors import ConfigError


class BigBird(BlockSparseAttention):
    """BigBird: every query attends to global blocks at the beginning, neighbouring blocks and a few random ones.

    Args:
        context: the layer's dimensions and role.
        block: tokens in a block.
        global_blocks: blocks at the beginning that attend to all tokens, and all tokens to them.
        window_blocks: neighbouring blocks to attend to, with the query's own in the middle; odd.
        random_blocks: further blocks to attend to, drawn per head and block.

    Raises:
        ConfigError: `window_blocks` is even.
    """

    provides: ClassVar[Capability] = ~Capability.CROSS
    draws: Int[Tensor, "h blocks random"]

    def __init__(
        self,
        context: AttentionContext,
        *,
        block: Annotated[int, Ge(1)],
        global_blocks: Annotated[int, Ge(0)],
        window_blocks: Annotated[int, Ge(1)],
        random_blocks: Annotated[int, Ge(0)],
    ) -> None:
        super().__init__(context)
        if window_blocks % 2 == 0:
            raise ConfigError(
                f"{context.path}.window_blocks={window_blocks} has no middle; use an odd number, such as 3."
            )
        self.block, self.global_blocks, self.random_blocks = block, global_blocks, random_blocks
        self.side = window_blocks // 2
        self.blocks = max(1, -(-context.max_key // block))
        self.register_buffer("draws", torch.empty(context.heads, self.blocks, random_blocks, dtype=torch.long))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the numbers that choose the random blocks."""
        self.draws.copy_(torch.randint(2**31, self.draws.shape))

    def mask_mod(self, length: int, *, causal: bool) -> MaskMod:
        """Whether the query's block reads the key's, from a table that is made again when the draws are."""
        return _mask_mod(self, self.draws, self.draws._version, -(-length // self.block), causal)

    def mix(self, tokens: AttentionInput, *, causal: bool, bias: RelativeBias | None) -> Float[Tensor, "b h n d"]:
        """softmax(Q K^T / sqrt(d) + B) V, for the global queries and for the others.

        The blocks are gathered as `blocks_read` lists them, so that only causality is left to decide in each. To look
        every pair up in mask_mod's table takes 1.6 times as long, 1.3 where causal (n 4096, 8 heads of 64, blocks of
        64, forward and backward, one thread), and a table of blocks is quadratic.
        """
        layout = BlockLayout(
            tokens,
            causal_mask_mod if causal else full_mask_mod,
            query_block=self.block,
            key_block=self.block,
            width=self.global_blocks + 2 * self.side + 1 + self.random_blocks,
            reads=lambda blocks, device: self.blocks_read(
                torch.arange(blocks.start, blocks.stop, device=device), causal
            ),
            # In the causal form a global query only attends to global keys, like any other query.
            whole=0 if causal else self.global_blocks,
        )
        return block_attention(tokens, layout, bias).values

    def blocks_read(self, blocks: Int[Tensor, " m"], causal: bool) -> Int[Tensor, "#h m w"]:
        """The key blocks that some query blocks read, each once, where they are not global; negative for none."""
        fixed = self._fixed_blocks(blocks)
        if not self.random_blocks:
            return fixed
        return torch.cat((fixed.expand(self.context.heads, -1, -1), self._random_blocks(blocks, causal)), dim=-1)

    def _fixed_blocks(self, blocks: Int[Tensor, " m"]) -> Int[Tensor, "1 m w"]:
        """The global and the neighbouring blocks of some blocks; negative where a neighbour is global."""
        everyone = torch.arange(self.global_blocks, device=blocks.device).expand(len(blocks), -1)
        window = blocks[:, None] + torch.arange(-self.side, self.side + 1, device=blocks.device)
        return torch.cat((everyone, window.masked_fill(window < self.global_blocks, -1)), dim=1)[None]

    def _random_blocks(self, blocks: Int[Tensor, " m"], causal: bool) -> Int[Tensor, "h m r"]:
        """The random blocks of some blocks; negative where none are left to choose from."""
        before = (blocks - self.side - self.global_blocks).clamp(min=0)  # how many to choose from before the window
        total = before
        if not causal:
            end = (blocks + 1).clamp(min=self.blocks)
            total = before + (end - (blocks + self.side + 1).clamp(min=self.global_blocks)).clamp(min=0)
        chosen: list[Tensor] = []  # in ascending order, among those to choose from
        for number in self.draws[:, blocks % self.blocks].unbind(-1):
            left = total - len(chosen)
            pick = torch.where(left > 0, number % left.clamp(min=1), -1)
            for used in chosen:
                pick = pick + ((used >= 0) & (pick >= used))
            chosen = _insert(chosen, torch.where(left > 0, pick, -1))
        ranks = torch.stack(chosen, dim=-1)
        after = (blocks + self.side + 1).clamp(min=self.global_blocks)[:, None] - before[:, None]
        found = torch.where(ranks < before[:, None], ranks + self.global_blocks, ranks + after)
        return found.masked_fill(ranks < 0, -1)

    def keys_of(self, query: Int[Tensor, " b"], length: int) -> Int[Tensor, "b #h k"]:
        """The positions in the pattern's blocks; those after the query are not stored yet."""
        blocks = query // self.block
        read = self.blocks_read(blocks, causal=True).expand(self.context.heads, -1, -1)
        wanted = read[..., None] * self.block + torch.arange(self.block, device=blocks.device)  # h b w k
        wanted = wanted.masked_fill((read < 0)[..., None], -1)
        return wanted.flatten(2).transpose(0, 1)


@lru_cache(maxsize=64)
def _mask_mod(attention: BigBird, draws: Tensor, version: int, blocks: int, causal: bool) -> MaskMod:
    """The mask_mod over O((n / b)^2) booleans, one per pair of blocks, for flex_attention."""
    with torch.inference_mode(False), torch.no_grad():
        reads = attention.blocks_read(torch.arange(blocks, device=draws.device), causal)
        reads = reads.masked_fill((reads < 0) | (reads >= blocks), blocks)  # none
        table = reads.new_zeros(len(reads), blocks, blocks + 1, dtype=torch.bool).scatter(2, reads, True)[..., :blocks]
        if not causal:
            table[:, : attention.global_blocks] = True
        table, block = table.contiguous(), attention.block
    if len(table) == 1:  # no head differs
        return with_causality(lambda head, query, key: table[0, query // block, key // block], causal=causal)
    return with_causality(lambda head, query, key: table[head, query // block, key // block], causal=causal)


def _insert(ascending: list[Tensor], new: Tensor) -> list[Tensor]:
    """Insert into ascending lists, element by element."""
    result = []
    for old in ascending:
        result.append(torch.minimum(old, new))
        new = torch.maximum(old, new)
    return [*result, new]
