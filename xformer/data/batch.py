"""Named, typed batches: a task takes one of these types and a data module yields one."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor


class ClassificationBatch(NamedTuple):
    """Sequences with one label each; `padding_mask` is True at real tokens, None where nothing is padded."""

    tokens: Int[Tensor, "batch length"]
    padding_mask: Bool[Tensor, "batch length"] | None
    labels: Int[Tensor, " batch"]

    @classmethod
    def example(cls, length: int) -> "ClassificationBatch":
        """One sequence of the given length, to measure a model with."""
        return cls(torch.zeros(1, length, dtype=torch.long), None, torch.zeros(1, dtype=torch.long))


class LanguageModelingBatch(NamedTuple):
    """Blocks of text and, at every position, the token that comes next."""

    tokens: Int[Tensor, "batch length"]
    labels: Int[Tensor, "batch length"]

    @classmethod
    def example(cls, length: int) -> "LanguageModelingBatch":
        """One block of the given length, to measure a model with."""
        return cls(torch.zeros(1, length, dtype=torch.long), torch.zeros(1, length, dtype=torch.long))


Batch = ClassificationBatch | LanguageModelingBatch
