r"""The entropy of each head's attention: 0 if every query attends to one token, log n if to all n equally.

    H = mean over queries i of  - sum_j w_ij log w_ij        in nats

The weights are measured, also for variants that never materialise them (`xformer.inspection.attention_maps`). Nothing
is logged if the weights are not a distribution (Linformer's have signs from F), if weights times values are not the
layer's output, or for influence.

Time O(n^2 + n / d passes of the variant) for each layer and example, memory O(n^2).
"""

from collections.abc import Mapping

from torch import Tensor

from xformer.inspection.attention_calls import AttentionCall
from xformer.inspection.attention_maps import map_of
from xformer.inspection.probes.base import AttentionProbe


class AttentionEntropy(AttentionProbe):
    """Logs `probe/attention_entropy/SLOT/LAYER/HEAD`.

    Args:
        examples: the number of sequences to measure.
    """

    def measure_call(self, call: AttentionCall) -> Mapping[str, Tensor] | str:
        """The mean entropy of each head's queries."""
        found = map_of(call)
        if not found.exact:
            return f"{found.variant} is not linear in the values"
        entropy = found.entropy
        if entropy is None:
            return f"the weights of {found.variant} are not distributions"
        return {"attention_entropy": entropy}
