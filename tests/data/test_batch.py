"""Batches: their tokens counted by hand, and the examples that a model is measured with."""

from typing import Any, NamedTuple, get_args

import pytest
import torch
from torch import Tensor

from xformer.data import batch
from xformer.data.batch import PADDED_WITH, ClassificationBatch, ImageBatch, LanguageModelingBatch, count_tokens
from xformer.errors import RunError

SEQUENCES = [kind for kind in get_args(batch.Batch) if kind is not ImageBatch]


def test_tokens_of_a_batch() -> None:
    tokens = torch.zeros(2, 3, dtype=torch.long)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert count_tokens(LanguageModelingBatch(tokens, tokens)) == 6
    assert count_tokens(ClassificationBatch(tokens, mask, torch.zeros(2, dtype=torch.long))) == 3


def test_tokens_of_a_pair_count_both_sides() -> None:
    class Pair(NamedTuple):
        source_tokens: Tensor
        source_padding_mask: Tensor
        target_tokens: Tensor

    pair = Pair(torch.zeros(1, 3), torch.tensor([[True, True, False]]), torch.zeros(1, 4))
    assert count_tokens(pair) == 2 + 4


def test_a_batch_without_tokens_is_refused() -> None:
    with pytest.raises(RunError, match=r"callbacks\.throughput=null"):
        count_tokens((torch.zeros(2),))


@pytest.mark.parametrize("kind", SEQUENCES, ids=lambda kind: kind.__name__)
def test_an_example_is_one_unpadded_item_of_the_length(kind: Any) -> None:
    example = kind.example(7)
    sides = [name for name in kind._fields if name.endswith("tokens")]
    assert sides
    assert all(getattr(example, name).shape == (1, 7) for name in sides)
    assert len(example.labels) == 1
    assert count_tokens(example) == 7 * len(sides)


def test_every_padded_field_has_its_mask_in_the_same_batch() -> None:
    masked = {mask for kind in SEQUENCES for mask in kind._fields if mask.endswith("padding_mask")}
    assert masked == set(PADDED_WITH.values())
    for kind in SEQUENCES:
        masks = {PADDED_WITH[name] for name in kind._fields if name.endswith("tokens")} & set(kind._fields)
        assert masks == masked & set(kind._fields)
