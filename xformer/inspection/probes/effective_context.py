r"""Attention distance and effective context of each head, in tokens.

    attention distance      mean over queries i of  sum_j w_ij |p_j - p_i|
    effective context       mean over queries i of  the least r with  sum over |p_j - p_i| <= r of w_ij  >=  share

with p the positions. The first is the mean attention distance of Dosovitskiy et al. 2021 (appendix D.7, figure 11),
which is sensitive to small weights far away; the second ignores these. For local attention both are at most the window.
The weights are measured (`xformer.inspection.attention_maps`); if entries may be negative (Linformer), w is their share
of the row's absolute sum. Nothing is logged if weights times values are not the layer's output, for cross-attention,
where positions of two sequences have no distance, and for token mixers without weights.

Time O(n^2 log n + n / d passes of the variant) for each layer and example, memory O(n^2).
"""

from collections.abc import Mapping
from typing import Annotated

from annotated_types import Ge, Interval
from jaxtyping import Float, Int
from torch import Tensor

from xformer.inspection.attention_calls import AttentionCall
from xformer.inspection.attention_maps import map_of
from xformer.inspection.probes.base import AttentionProbe
from xformer.tasks.base import Task


class EffectiveContext(AttentionProbe):
    """Logs `probe/attention_distance/SLOT/LAYER/HEAD` and `probe/effective_context/SLOT/LAYER/HEAD`.

    Args:
        examples: the number of sequences to measure.
        share: the share of a query's weight that the context contains.
    """

    def __init__(self, *, examples: Annotated[int, Ge(1)], share: Annotated[float, Interval(gt=0, le=1)]) -> None:
        super().__init__(examples=examples)
        self.share = share

    def slot_without(self, task: Task, slot: str) -> str | None:
        """Only self-attention has distances."""
        crosses = task.model.slots[slot].position is None
        return "positions of two sequences have no distance" if crosses else None

    def measure_call(self, call: AttentionCall) -> Mapping[str, Tensor] | str:
        """The attention distance and the effective context of each head."""
        found, distances = map_of(call), call.mask.distances().abs()
        if not found.exact:
            return f"{found.variant} is not linear in the values"
        weights = found.weights.abs()
        return {
            "attention_distance": attention_distance(weights, distances),
            "effective_context": effective_context(weights, distances, self.share),
        }


def attention_distance(weights: Float[Tensor, "b h q k"], distances: Int[Tensor, "#b q k"]) -> Float[Tensor, " h"]:
    """The mean attention distance of each head, over queries that attend to a key.

    Args:
        weights: non-negative weights.
        distances: non-negative distances between positions.
    """
    total = weights.sum(-1)
    return _mean((weights * distances[:, None]).sum(-1) / total.clamp(min=_TINY), total)


def effective_context(
    weights: Float[Tensor, "b h q k"], distances: Int[Tensor, "#b q k"], share: float
) -> Float[Tensor, " h"]:
    """The mean distance within which queries have this share of their weight, for each head.

    Args:
        weights: non-negative weights.
        distances: non-negative distances between positions.
        share: the share of the weight.
    """
    near = distances[:, None].expand_as(weights).sort(dim=-1)
    held = weights.gather(-1, near.indices).cumsum(-1)
    last = (held < share * held[..., -1:]).sum(-1, keepdim=True)
    return _mean(near.values.gather(-1, last).squeeze(-1).to(weights.dtype), held[..., -1])


_TINY = 1e-9


def _mean(values: Float[Tensor, "b h q"], total: Float[Tensor, "b h q"]) -> Float[Tensor, " h"]:
    reads = total > _TINY
    mean: Tensor = (values * reads).sum(dim=(0, 2)) / reads.sum(dim=(0, 2)).clamp(min=1)
    return mean
