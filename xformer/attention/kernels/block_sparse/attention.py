"""`BlockSparseAttention`: the base class of softmax attention over a pattern of positions, and its decoding state.

A variant states its pattern once, as a mask_mod over (head, query position, key position):

    softmax(Q K^T / sqrt(d) + B) V over {j : mask_mod(head, i, j)}

On a GPU, torch's flex_attention computes this (`flex_attention.py`). Everywhere else the variant attends through
`block_attention.py`, by blocks that it lays out, under the same mask_mod.

A decoding step reads the keys of the pattern, and no others, from a state that finds keys by their positions.

Shapes: b batch, h heads, n positions filled up to whole blocks, d features of one head.
"""

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from xformer.attention.base import Attention
from xformer.attention.kernels.block_sparse import flex_attention as flex
from xformer.attention.kernels.block_sparse.block_attention import (
    AttentionInput,
    MaskMod,
    bias_scores,
    bias_values,
    softmax,
)
from xformer.core.bias import RelativeBias, TableBias
from xformer.core.capability import Capability
from xformer.core.mask import Mask
from xformer.core.precision import at_least_float32, in_float32, without_autocast
from xformer.core.state import State


class BlockSparseAttention(Attention):
    """Exact softmax attention over the keys that a pattern of positions allows.

    Padding attends to nothing and yields zeros. The cost grows with the largest position, even if positions are
    skipped.
    """

    provides: ClassVar[Capability] = ~Capability.CROSS
    reasons: ClassVar[dict[Capability, str]] = {
        Capability.CROSS: "its pattern compares positions, and those of two different sequences do not correspond.",
    }

    @abstractmethod
    def mask_mod(self, length: int, *, causal: bool) -> MaskMod:
        """The attention pattern of positions below `length`, as a mask_mod.

        Returns:
            The same object for equal patterns, so that layers share compiled kernels and block masks.
        """

    @abstractmethod
    def mix(self, tokens: AttentionInput, *, causal: bool, bias: RelativeBias | None) -> Float[Tensor, "b h n d"]:
        """Attend for tokens at positions 0, 1, 2, ..., by kernels that cover at least the pattern."""

    @abstractmethod
    def keys_of(self, query: Int[Tensor, " b"], length: int) -> Int[Tensor, "b #h k"]:
        """The positions of the keys that causal queries read, each once; negative for none.

        Evaluating mask_mod for all keys instead would make a step 8 times slower for a window of 64, 6 times for sparse
        attention of stride 64 and 2.4 times for BigBird's blocks of 64 (4096 keys, 4 heads of 64, one thread). Later
        positions are allowed, because nothing is stored for them yet.

        Args:
            query: the position of one query per row.
            length: the state's size.
        """

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # one break of the graph, whose loops over groups would be unrolled, for minutes
    def forward(
        self,
        query: Float[Tensor, "b h q d"],
        key: Float[Tensor, "b h k d"],
        value: Float[Tensor, "b h k d"],
        *,
        mask: Mask,
        bias: RelativeBias | None = None,
    ) -> Float[Tensor, "b h q d"]:
        """softmax(Q K^T / sqrt(d) + B) V, over the keys of the pattern."""
        if query.shape[2] != key.shape[2]:
            raise self._refusal(Capability.CROSS)
        order = PositionOrder(mask.key_positions, mask.key_padding, consecutive=mask.offsets == (0, 0))
        positions = torch.arange(order.span, device=key.device)
        query, key, value = (order.by_position(x) for x in (query, key, value))
        tokens = AttentionInput(query, key, value, positions, positions, order.valid, order.span)
        return order.by_token(self._mix(tokens, causal=mask.causal, bias=bias))

    def _mix(self, tokens: AttentionInput, *, causal: bool, bias: RelativeBias | None) -> Tensor:
        """Attend by the kernel that suits the device."""
        if flex.flex_supports(tokens.query, bias):
            mask_mod = self.mask_mod(flex.padded_length(tokens.span), causal=causal)
            mixed: Tensor = flex.flex_block_attention(tokens, mask_mod, cast(TableBias | None, bias))
            return mixed
        query, key, value = (at_least_float32(x) for x in (tokens.query, tokens.key, tokens.value))
        with without_autocast(query.device):
            precise = replace(tokens, query=query, key=key, value=value)
            return self.mix(precise, causal=causal, bias=bias).to(tokens.value.dtype)

    def init_state(self, max_length: int) -> "PositionState":
        """An empty state for the keys and values of `max_length` tokens."""
        return PositionState(max_length, max_length)

    def step(
        self,
        query: Float[Tensor, "b h new d"],
        key: Float[Tensor, "b h new d"],
        value: Float[Tensor, "b h new d"],
        state: State,
        *,
        mask: Mask,
        bias: RelativeBias | None = None,
    ) -> Float[Tensor, "b h new d"]:
        """Attend to the pattern's keys only: a prompt by `forward`, later tokens one by one."""
        assert isinstance(state, PositionState)
        new = query.shape[2]
        if state.length == 0 and new > 1:
            mixed: Tensor = self(query, key, value, mask=mask, bias=bias)
            state.append(key, value, mask.key_positions, mask.key_padding)
            return mixed
        self._check(mask, bias)
        outputs = []
        for at in range(new):
            one = slice(at, at + 1)
            padding = None if mask.key_padding is None else mask.key_padding[:, one]
            state.append(key[:, :, one], value[:, :, one], mask.key_positions[:, one], padding)
            outputs.append(self._read(query[:, :, one], mask.query_positions[:, at], state, bias))
        return torch.cat(outputs, dim=2)

    def _read(self, query: Tensor, positions: Tensor, state: "PositionState", bias: RelativeBias | None) -> Tensor:
        positions = positions.expand(len(query))
        wanted = self.keys_of(positions, state.size)
        key, value, found = state.read(wanted)
        # A missing key may be at any distance; use one that exists.
        distances = (wanted - positions[:, None, None]).masked_fill(~found, 0)[:, :, None]  # b #h 1 k
        return self._mix_read(query, key, value, found=found[:, :, None], distances=distances, bias=bias)

    @in_float32
    def _mix_read(
        self, query: Tensor, key: Tensor, value: Tensor, *, found: Tensor, distances: Tensor, bias: RelativeBias | None
    ) -> Tensor:
        """softmax(Q K^T / sqrt(d) + B) V, over the keys that were found."""
        scores = query @ key.mT * query.shape[-1] ** -0.5  # b h 1 k
        if bias is not None:
            scores = scores + bias_scores(bias, query, distances)
        weights, _ = softmax(scores, found)
        mixed = weights @ value
        term = None if bias is None else bias_values(bias, weights, distances)
        return mixed if term is None else mixed + term


class PositionOrder:
    """Reorders tokens by position and back, so that a pattern is the same for every row of a batch.

    Rows may be shifted against each other (padding on the left). A pattern is a function of positions, so it is applied
    to the tokens in the order of positions. Positions without a token hold zeros and are not valid.

    Args:
        positions: the position of every token; distinct for valid tokens.
        valid: False at padding; None without padding.
        consecutive: whether positions are known to be 0, 1, 2, ... in all rows; otherwise they are read, which may wait
            for a device.

    Attributes:
        span: a bound above all positions.
        valid: True at positions with a token; None if all positions have one.
    """

    def __init__(
        self, positions: Int[Tensor, "#b n"], valid: Bool[Tensor, "b n"] | None, *, consecutive: bool = False
    ) -> None:
        length = positions.shape[1]
        index = torch.arange(length, device=positions.device)
        self.span = length
        self.valid: Bool[Tensor, "#b span"] | None = None
        self._in_order = valid is None and (consecutive or torch.equal(positions, index.expand_as(positions)))
        if self._in_order:
            return
        self.span = length if consecutive else int(positions.max()) + 1
        # An additional position receives padding, and an additional token of zeros fills positions without a token.
        self._position = positions if valid is None else positions.where(valid, self.span)  # b n
        token = self._position.new_full((len(self._position), self.span + 1), length)
        self._token = token.scatter(1, self._position, index.expand_as(self._position))[:, : self.span]  # b span
        self.valid = self._token < length

    def by_position(self, x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h span d"]:
        """Move every token to its position; positions without a token are zero."""
        return x if self._in_order else _rows_at(x, self._token)

    def by_token(self, x: Float[Tensor, "b h span d"]) -> Float[Tensor, "b h n d"]:
        """Move tokens back from their positions; padding is zero."""
        return x if self._in_order else _rows_at(x, self._position)


def _rows_at(x: Tensor, index: Tensor) -> Tensor:
    """Gather rows of x; an index one past the end gives zeros."""
    index = index[:, None, :, None].expand(len(x), x.shape[1], -1, x.shape[3])
    return pad(x, (0, 0, 0, 1)).gather(2, index)


class CacheRead(NamedTuple):
    """Keys and values read from a cache, and which of the requested positions were found."""

    key: Float[Tensor, "b h k d"]
    value: Float[Tensor, "b h k d"]
    found: Bool[Tensor, "b #h k"]


class PositionState(State):
    """A ring-buffer cache: the token at position p is in row p mod `size`, until that at p + `size` replaces it.

    Padding is never stored, so it does not replace other tokens.

    Args:
        size: the number of rows; one more row holds entries that are never read.
        max_length: the maximum number of tokens, including padding; None without a limit.
    """

    def __init__(self, size: int, max_length: int | None) -> None:
        self.size, self.max_length = size, max_length
        self._buffers: tuple[Tensor, ...] = ()

    def append(
        self,
        key: Float[Tensor, "b h new d"],
        value: Float[Tensor, "b h new d"],
        positions: Int[Tensor, "#b new"],
        padding: Bool[Tensor, "b new"] | None,
    ) -> None:
        """Append the next tokens.

        Raises:
            ValueError: the state has no room for the tokens.
        """
        batch, heads, new, head_dim = key.shape
        if self.max_length is not None and self.length + new > self.max_length:
            raise ValueError(
                f"decoding state: {self.length + new} tokens do not fit into the {self.max_length} it was made for"
            )
        if not self._buffers:
            keys = key.new_zeros(batch, self.size + 1, heads, head_dim)
            self._buffers = (keys, keys.clone(), positions.new_full((batch, self.size + 1), -1))
        positions = positions.expand(batch, -1)
        valid = torch.ones_like(positions, dtype=torch.bool) if padding is None else padding
        last = positions.masked_fill(~valid, -1).amax(dim=1, keepdim=True)
        columns = (positions % self.size).where(valid & (positions > last - self.size), self.size)
        rows = torch.arange(batch, device=key.device)[:, None]
        keys, values, stored = self._buffers
        keys[rows, columns], values[rows, columns] = key.transpose(1, 2), value.transpose(1, 2)
        stored[rows, columns] = positions
        self.length += new

    def read(self, wanted: Int[Tensor, "b #h k"]) -> CacheRead:
        """Read keys and values at these positions; a negative position is never found."""
        keys, values, stored = self._buffers  # b size h d, b size h d, b size
        columns = wanted % self.size
        rows = torch.arange(len(keys), device=keys.device)[:, None, None]
        found = (stored[rows, columns] == wanted) & (wanted >= 0)
        heads = torch.arange(keys.shape[2], device=keys.device)[:, None]
        return CacheRead(keys[rows, columns, heads], values[rows, columns, heads], found)

    def reorder(self, indices: Int[Tensor, " batch"]) -> None:
        """Replace row i by row `indices[i]`."""
        self._buffers = tuple(buffer.index_select(0, indices) for buffer in self._buffers)

    @property
    def bytes(self) -> int:
        """The memory in bytes."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self._buffers)
