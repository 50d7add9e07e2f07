"""Named, typed batches: a task takes one of these types and a data module yields one."""

from typing import NamedTuple

from jaxtyping import Bool, Int
from torch import Tensor


class ClassificationBatch(NamedTuple):
    """Sequences with one label each; `padding_mask` is True at real tokens, None where nothing is padded."""

    tokens: Int[Tensor, "batch length"]
    padding_mask: Bool[Tensor, "batch length"] | None
    labels: Int[Tensor, " batch"]


class LanguageModelingBatch(NamedTuple):
    """Blocks of text and, at every position, the token that comes next."""

    tokens: Int[Tensor, "batch length"]
    labels: Int[Tensor, "batch length"]
