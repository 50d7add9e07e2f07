r"""The entropy of what each head reads: 0 where every query reads one token, log n where it reads all n alike.

    H = mean over queries i of  - sum_j w_ij log w_ij        in nats

The weights are measured, those included that a variant never writes out (`xformer.inspection.attention_maps`).
Linformer's are no distribution, since F mixes the values with signs: it has no entropy over tokens, and none is logged;
nor is one where weights times values are not the layer's output, nor of influence, which is no distribution either.

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
        examples: sequences that are measured.
    """

    def measure_call(self, call: AttentionCall) -> Mapping[str, Tensor] | str:
        """The mean entropy of each head's queries."""
        found = map_of(call)
        if not found.exact:
            return f"{found.variant} is not weights times values"
        entropy = found.entropy
        return (
            f"the weights of {found.variant} are no distribution" if entropy is None else {"attention_entropy": entropy}
        )
