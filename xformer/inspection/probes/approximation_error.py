r"""The error of each layer's attention against exact attention on the same queries and keys.

    error = |mix(Q, K, V) - softmax(Q K^T / sqrt(d) + B) V|_F / |softmax(Q K^T / sqrt(d) + B) V|_F

with the layer's own Q, K, V, mask and relative bias B, over all heads and queries of a sequence. It is 0 for exact
attention. Additive and multiplicative attention are not approximations; for them it measures the difference. Token
mixers without queries, keys and values are skipped.

Time O(n^2 d) for each layer and example, memory O(n^2).
"""

from collections.abc import Mapping

from torch import Tensor
from torch.linalg import vector_norm

from xformer.attention.full import Full
from xformer.inspection.attention_calls import AttentionCall
from xformer.inspection.probes.base import AttentionProbe


class ApproximationError(AttentionProbe):
    """Logs `probe/approximation_error/SLOT/LAYER`.

    Args:
        examples: the number of sequences to measure.
    """

    def measure_call(self, call: AttentionCall) -> Mapping[str, Tensor]:
        """The relative error of the mixed values."""
        exact = call.mixed(Full(call.mix.context))
        return {"approximation_error": vector_norm(call.mixed(call.mix) - exact) / vector_norm(exact)}
