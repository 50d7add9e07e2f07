"""Typed batches: each data module yields one of these types, and each task takes one."""

import functools
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xformer.errors import RunError

IGNORED = -100
"""A label that stands for none: where the target is padding."""


class ClassificationBatch(NamedTuple):
    """Sequences with one label each; `padding_mask` is True at tokens, False at padding, None without padding."""

    tokens: Int[Tensor, "batch length"]
    padding_mask: Bool[Tensor, "batch length"] | None
    labels: Int[Tensor, " batch"]

    @classmethod
    def example(cls, length: int) -> "ClassificationBatch":
        """One sequence of the given length, to measure a model with."""
        return cls(torch.zeros(1, length, dtype=torch.long), None, torch.zeros(1, dtype=torch.long))


class PairClassificationBatch(NamedTuple):
    """Pairs of sequences with one label each; the masks are True at tokens, False at padding, None without padding."""

    first_tokens: Int[Tensor, "batch first"]
    first_padding_mask: Bool[Tensor, "batch first"] | None
    second_tokens: Int[Tensor, "batch second"]
    second_padding_mask: Bool[Tensor, "batch second"] | None
    labels: Int[Tensor, " batch"]

    @classmethod
    def example(cls, length: int) -> "PairClassificationBatch":
        """One pair of sequences of the given length, to measure a model with."""
        tokens = torch.zeros(1, length, dtype=torch.long)
        return cls(tokens, None, tokens, None, torch.zeros(1, dtype=torch.long))


class LanguageModelingBatch(NamedTuple):
    """Blocks of tokens and, at every position, the next token as label."""

    tokens: Int[Tensor, "batch length"]
    labels: Int[Tensor, "batch length"]

    @classmethod
    def example(cls, length: int) -> "LanguageModelingBatch":
        """One block of the given length, to measure a model with."""
        return cls(torch.zeros(1, length, dtype=torch.long), torch.zeros(1, length, dtype=torch.long))


class Seq2SeqBatch(NamedTuple):
    """Pairs of a source and a target sequence, both padded on the right.

    The target begins with the begin token and lacks the end token; the labels lack the first and have the second. The
    masks are True at real tokens, None where nothing is padded; labels at padding are `IGNORED`. The references are the
    targets as text, where they are text and what is written is to be scored.
    """

    source_tokens: Int[Tensor, "batch source"]
    source_padding_mask: Bool[Tensor, "batch source"] | None
    target_tokens: Int[Tensor, "batch target"]
    target_padding_mask: Bool[Tensor, "batch target"] | None
    labels: Int[Tensor, "batch target"]
    references: list[str] | None = None

    @classmethod
    def example(cls, length: int) -> "Seq2SeqBatch":
        """One pair of sequences of the given length, to measure a model with."""
        tokens = torch.zeros(1, length, dtype=torch.long)
        return cls(tokens, None, tokens, None, tokens)


class ImageBatch(NamedTuple):
    """Images with values in [0, 1], and the class of each or, for mixed images, the probability of every class."""

    images: Float[Tensor, "batch channels height width"]
    labels: Int[Tensor, " batch"] | Float[Tensor, "batch classes"]


Batch = ClassificationBatch | PairClassificationBatch | LanguageModelingBatch | Seq2SeqBatch | ImageBatch

PADDED_WITH = {
    "tokens": "padding_mask",
    "first_tokens": "first_padding_mask",
    "second_tokens": "second_padding_mask",
    "source_tokens": "source_padding_mask",
    "target_tokens": "target_padding_mask",
    "labels": "target_padding_mask",
}
"""The fields of a batch that are padded, and the field that says where."""


def count_tokens(batch: Any) -> Tensor:
    """The number of tokens in a batch without padding, on its device.

    Every field `tokens` counts, or `source_tokens` and `target_tokens`: where there is a mask of the same prefix
    (`padding_mask`, `source_padding_mask`) what it marks as real, else all.

    Args:
        batch: A named batch.

    Raises:
        RunError: The batch has no field of that name.
    """
    counts = []
    for name in getattr(batch, "_fields", ()):
        if name == "tokens" or name.endswith("_tokens"):
            mask = getattr(batch, name.removesuffix("tokens") + "padding_mask", None)
            tokens: Tensor = getattr(batch, name)
            counts.append(mask.sum() if mask is not None else torch.full((), tokens.numel(), device=tokens.device))
    if not counts:
        raise RunError(
            f"A batch of type {type(batch).__name__} has no field `tokens` to count; callbacks.throughput=null trains"
            " without counting."
        )
    return functools.reduce(torch.add, counts)
