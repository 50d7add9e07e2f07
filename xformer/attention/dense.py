"""What attention that writes out a score for every pair of a query and a key has in common."""

from jaxtyping import Float
from torch import Tensor

from xformer.attention.base import Attention
from xformer.core.bias import RelativeBias, dense_scores
from xformer.core.mask import Mask
from xformer.core.state import KeyValueState, State


def attend(
    scores: Float[Tensor, "b h q k"],
    value: Float[Tensor, "b h k d"],
    *,
    query: Float[Tensor, "b h q d"],
    mask: Mask,
    bias: RelativeBias | None,
) -> Float[Tensor, "b h q d"]:
    """softmax(scores + bias) V over the allowed keys, in the type of the scores; zeros where there is none."""
    if bias is not None:
        scores = scores + dense_scores(bias, query, mask)
    allowed = mask.dense()
    if allowed is None:
        weights = scores.softmax(dim=-1)
    else:
        # An empty row reads everything, so that its gradient is not NaN, and what it read is zeroed.
        some = allowed.any(dim=-1, keepdim=True)
        weights = scores.masked_fill(~allowed & some, float("-inf")).softmax(dim=-1) * some
    mixed = weights @ value
    term = bias.values(weights, mask.distances()) if bias is not None and bias.adds_values else None
    return mixed if term is None else mixed + term


class Dense(Attention):
    """Decodes from all keys and values so far."""

    def __call__(
        self,
        query: Float[Tensor, "b h q d"],
        key: Float[Tensor, "b h k d"],
        value: Float[Tensor, "b h k d"],
        *,
        mask: Mask,
        bias: RelativeBias | None = None,
    ) -> Float[Tensor, "b h q d"]:
        """Run `forward` on what is not padding."""
        return super().__call__(*mask.blank(query, key, value), mask=mask, bias=bias)

    def init_state(self, max_length: int) -> KeyValueState:
        """Room for the keys and values of `max_length` tokens."""
        return KeyValueState(max_length)

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
        """Append the new keys and values, then read all of them."""
        assert isinstance(state, KeyValueState)
        self._check(mask, bias)
        query, key, value = mask.blank(query, key, value)
        start = None if mask.counted is None else mask.counted[0]
        state.append(key, value, mask.key_positions, mask.key_padding, start=start)
        if state.length == query.shape[2]:  # nothing came before
            return self.forward(query, key, value, mask=mask, bias=bias)
        counted = None if start is None or state.padding is not None else (start, 0)
        causal = mask.causal and query.shape[2] > 1  # nothing comes after a single one
        seen = Mask(mask.query_positions, state.positions, causal, state.padding, counted)
        return self.forward(query, state.keys, state.values, mask=seen, bias=bias)
