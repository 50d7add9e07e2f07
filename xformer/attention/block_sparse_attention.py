"""What local, sparse and BigBird attention share: everything but the pattern."""

from abc import abstractmethod
from dataclasses import replace
from functools import partial
from typing import ClassVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xformer.attention import block_sparse_flex
from xformer.attention.base import Attention
from xformer.attention.block_sparse import Tokens, softmax
from xformer.attention.block_sparse_bias import bias_scores, bias_values
from xformer.attention.block_sparse_slots import Slots
from xformer.attention.block_sparse_state import PositionState
from xformer.attention.pattern import Rule
from xformer.core.bias import RelativeBias, TableBias
from xformer.core.capability import Capability
from xformer.core.mask import Mask
from xformer.core.precision import as_they_are, in_float32, wide
from xformer.core.state import State


class BlockSparseAttention(Attention):
    """Exact softmax attention over the keys that a pattern of positions allows.

    A padded token reads nothing and yields zeros. Every position from 0 to the largest one costs something, whether a
    token has it or not.
    """

    provides: ClassVar[Capability] = ~Capability.CROSS
    reasons: ClassVar[dict[Capability, str]] = {
        Capability.CROSS: "its pattern compares positions, and those of two different sequences do not correspond.",
    }

    @abstractmethod
    def mix(self, tokens: Tokens, *, causal: bool, bias: RelativeBias | None) -> Float[Tensor, "b h n d"]:
        """Mix the values of tokens whose positions are 0, 1, 2, ..."""

    @abstractmethod
    def rule(self, length: int, *, causal: bool) -> Rule:
        """The same pattern, pair by pair, of positions below `length`; the same object or an equal one each time."""

    @abstractmethod
    def recall(self, positions: Int[Tensor, " b"], length: int) -> Int[Tensor, "b #h k"]:
        """The positions that a decoding step at these positions reads, each once; negative for none.

        Later ones do no harm, since nothing is stored for them yet.

        Args:
            positions: of one query per row.
            length: the state's size.
        """

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # one break of the graph, and not one for each of its parts
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
        slots = Slots(mask.key_positions, mask.key_padding, counted=mask.counted == (0, 0))
        positions = torch.arange(slots.span, device=key.device)
        query, key, value = (slots.place(x) for x in (query, key, value))
        tokens = Tokens(query, key, value, positions, positions, slots.taken, slots.span)
        return slots.take(self._mix(tokens, causal=mask.causal, bias=bias))

    def _mix(self, tokens: Tokens, *, causal: bool, bias: RelativeBias | None) -> Tensor:
        """By the kernel that the device has."""
        if block_sparse_flex.applies(tokens.query, bias):
            rule = partial(self.rule, causal=causal)
            mixed: Tensor = block_sparse_flex.attend(tokens, rule, cast(TableBias | None, bias))
            return mixed
        query, key, value = (wide(x) for x in (tokens.query, tokens.key, tokens.value))
        with as_they_are(query.device):
            precise = replace(tokens, query=query, key=key, value=value)
            return self.mix(precise, causal=causal, bias=bias).to(tokens.value.dtype)

    def init_state(self, max_length: int) -> PositionState:
        """Room for the keys and values of `max_length` tokens."""
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
        """Read the pattern's keys, and no others: the prompt by `forward`, what follows token by token."""
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

    def _read(self, query: Tensor, positions: Tensor, state: PositionState, bias: RelativeBias | None) -> Tensor:
        positions = positions.expand(len(query))
        wanted = self.recall(positions, state.size)
        key, value, there = state.read(wanted)
        # What is not there may be at any distance; it is given one that exists.
        distances = (wanted - positions[:, None, None]).masked_fill(~there, 0)[:, :, None]  # b #h 1 k
        return self._mix_read(query, key, value, there=there[:, :, None], distances=distances, bias=bias)

    @in_float32
    def _mix_read(
        self, query: Tensor, key: Tensor, value: Tensor, *, there: Tensor, distances: Tensor, bias: RelativeBias | None
    ) -> Tensor:
        """softmax(Q K^T / sqrt(d) + B) V, over the keys that are there."""
        scores = query @ key.mT * query.shape[-1] ** -0.5  # b h 1 k
        if bias is not None:
            scores = scores + bias_scores(bias, query, distances)
        weights, _ = softmax(scores, there)
        mixed = weights @ value
        term = None if bias is None else bias_values(bias, weights, distances)
        return mixed if term is None else mixed + term
