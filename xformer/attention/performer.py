r"""Performer: attention as a product of random features, linear in the length.

Choromanski et al. 2021, "Rethinking Attention with Performers" (FAVOR+), equations 4 and 5 with the feature maps of
`features.py`, and a relative bias b as in Luo et al. 2021, "Stable, Fast and Accurate":

    out_i = sum_j w_ij v_j / sum_j w_ij,     w_ij = exp(b(p_j - p_i)) phi(q_i) . phi(k_j),     j <= i where causal

Time O(n m d) in both directions and O(n m (d + c)) where causal, memory O(n (d + m d / c)) for m features and chunks of
c = 64 tokens (`chunkwise.py`), as features are recomputed in the backward pass. No epsilon is added to the
denominator and no key's scale depends on a later key, so the future does not leak; sums are in float32 at least, under
autocast too. Decoding holds one sum, O(m d), whatever the context.

A bias costs what its table asks for (`prefix_sums.py`). One that is linear in the distance (ALiBi) is a decay of the
sums; where causal, it is only a factor of each key, and costs nothing. One that is constant from a `reach` on (T5, a
clipped table) attends to `reach` keys on either side one by one and to the others by their sums, in time O(n m (reach +
c + d)) for chunks of c = 128. Any other attends to every key one by one, for no more than a chunk of queries at once:
exact, time O(n^2 m), memory O(n c). Luo et al. compute the same with a Fourier transform in O(n log n m d), whose
rounding error is relative to the largest weight anywhere in the sequence: small denominators lose their digits, and
later tokens leak into earlier ones. With unit-normal inputs, d = 64, n = 512, float32 and a T5 table of deviation 3 it
was wrong by 0.6, and with inputs twice as large some denominators were negative (measured), so it is not used here.

Deviations: one W per layer for all heads; phi drops 1 / sqrt(m) and the paper's epsilons. A causal or biased query
whose weights all lie below some 1e-30 of the product of its own and its keys' largest features yields zeros, since
float32 cannot hold them; it takes queries and keys that point away from each other with norms of several sqrt(d).
Rotary positions are a function of the distance as far as the estimate is: exactly so in expectation over W.

Not supported: a bias that depends on the query's content; `reasons` says why.
"""

from typing import Annotated, ClassVar

from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from xformer.attention.base import Attention, AttentionContext
from xformer.attention.kernels.random_features.chunkwise import bidirectional_attention, causal_attention
from xformer.attention.kernels.random_features.features import Kernel, RandomFeatures
from xformer.attention.kernels.random_features.prefix_sums import PrefixSumState, prefix_sum_attention
from xformer.core.bias import RelativeBias, TableBias
from xformer.core.capability import Capability
from xformer.core.mask import Mask
from xformer.core.precision import at_least_float32, without_autocast
from xformer.core.state import State


class Performer(Attention):
    """Performer: linear attention by positive random features of queries and keys.

    Args:
        context: the layer's dimensions and role.
        features: random features per head, m in the paper.
        kernel: `exp` estimates softmax; `relu` is another kernel.
        redraw_interval: training steps between redraws of the features; None keeps the first ones.
    """

    provides: ClassVar[Capability] = ~Capability.CONTENT_BIAS
    reasons: ClassVar[dict[Capability, str]] = {
        Capability.CONTENT_BIAS: (
            "its weights are products of a feature of the query and one of the key, and a term of the query and the "
            "distance is neither; it would take a sum of its own for every pair."
        ),
    }

    def __init__(
        self,
        context: AttentionContext,
        *,
        features: Annotated[int, Ge(1)],
        kernel: Kernel,
        redraw_interval: Annotated[int, Ge(1)] | None,
    ) -> None:
        super().__init__(context)
        self.redraw_interval = redraw_interval
        self.log_features = RandomFeatures(features, context.head_dim, kernel)

    def before_batch(self, step: int) -> None:
        """Draw new features at every `redraw_interval`-th step of training.

        The features depend only on the step and the stored seed, so ranks agree, and all batches of an accumulation use
        the same features.
        """
        if self.training and self.redraw_interval is not None and step % self.redraw_interval == 0:
            self.log_features.draw(step // self.redraw_interval)

    def forward(
        self,
        query: Float[Tensor, "b h q d"],
        key: Float[Tensor, "b h k d"],
        value: Float[Tensor, "b h k d"],
        *,
        mask: Mask,
        bias: RelativeBias | None = None,
    ) -> Float[Tensor, "b h q d"]:
        """phi(Q) (phi(K)^T V) / phi(Q) (phi(K)^T 1), over the allowed keys."""
        assert bias is None or isinstance(bias, TableBias)
        phi, decay = self.log_features, None if bias is None else bias.slopes
        with without_autocast(query.device):
            q, k, v = mask.blank(at_least_float32(query), at_least_float32(key), at_least_float32(value))
            if bias is None and not mask.causal:
                mixed = bidirectional_attention(phi, q, k, v, mask.key_padding)
            elif mask.causal and mask.aligned and (bias is None or decay is not None):
                mixed = causal_attention(phi, q, k, v, mask.key_positions, mask.key_padding, decay)
            else:
                mixed = prefix_sum_attention(phi, q, k, v, mask=mask, bias=bias)
        return mixed.to(query.dtype)

    def init_state(self, max_length: int) -> PrefixSumState:
        """An empty decoding state, for any number of tokens."""
        return PrefixSumState()

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
        """Attend to the sums and the new keys, then add these to the sums.

        The size of the state is constant, except for a bias without a known reach, which needs all keys one by one.
        """
        assert isinstance(state, PrefixSumState)
        self._check(mask, bias)
        assert bias is None or isinstance(bias, TableBias)
        causal_mask = Mask(mask.query_positions, mask.query_positions, True, mask.key_padding)
        with without_autocast(query.device):
            q, k, v = mask.blank(at_least_float32(query), at_least_float32(key), at_least_float32(value))
            mixed = prefix_sum_attention(self.log_features, q, k, v, mask=causal_mask, bias=bias, state=state)
        return mixed.to(query.dtype)
