"""Class weights: how much each class counts in a loss."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from jaxtyping import Float
from torch import Tensor

from xformer.data.spec import DataSpec
from xformer.errors import ConfigError

ClassWeights = Literal["balanced"] | Sequence[Annotated[float, Gt(0)]]
"""`balanced`, or one positive weight per class; a batch of a class of weight 0 would have no mean."""


def resolve_class_weights(weights: ClassWeights | None, spec: DataSpec) -> Float[Tensor, " classes"] | None:
    """Compute the weight of each class, in float64.

    Args:
        weights: one for each class in the order of their numbers; or `balanced`: n / (classes * n_c), so that all
            classes count alike in the sum over the n training labels of which n_c are of class c (King & Zeng 2001);
            or None, for no weights.
        spec: the specification of the data.

    Raises:
        ConfigError: too few or too many weights, or one that is not positive: a batch of such a class alone would have
            no mean; or `balanced` where a class has no training label or the data do not count them.
    """
    if weights is None:
        return None
    classes = spec.classes or 0
    if isinstance(weights, str):
        return _balanced(spec.class_counts, classes)
    if len(weights) != classes:
        raise ConfigError(
            f"task.class_weights={list(weights)} has {len(weights)} weights, and the data have {classes} classes: pass "
            "one for each."
        )
    return torch.tensor(weights, dtype=torch.float64)


def _balanced(counts: Sequence[int] | None, classes: int) -> Float[Tensor, " classes"]:
    if counts is None:
        raise ConfigError(
            "task.class_weights=balanced needs data that report their class counts: pass a list of weights instead."
        )
    if min(counts) == 0:
        raise ConfigError(
            f"task.class_weights=balanced has no weight for class {list(counts).index(0)}, which has no training "
            "label: pass a list of weights instead."
        )
    tensor = torch.tensor(counts, dtype=torch.float64)
    return tensor.sum() / (classes * tensor)
