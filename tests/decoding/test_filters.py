"""Each filter against Hugging Face's, and what it must refuse."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers.generation import logits_process as theirs

from tests.decoding.test_beam import Toy
from xformer.decoding.filters import RepetitionPenalty, Temperature, TopK, TopP
from xformer.errors import ConfigError

PAIRS = {
    "repetition 1.3": (RepetitionPenalty(1.3), theirs.RepetitionPenaltyLogitsProcessor(1.3)),
    "repetition 0.7": (RepetitionPenalty(0.7), theirs.RepetitionPenaltyLogitsProcessor(0.7)),
    "temperature": (Temperature(0.4), theirs.TemperatureLogitsWarper(0.4)),
    "top-k 1": (TopK(1), theirs.TopKLogitsWarper(1)),
    "top-k 3": (TopK(3), theirs.TopKLogitsWarper(3)),
    "top-k 99": (TopK(99), theirs.TopKLogitsWarper(99)),
    "top-p 0.01": (TopP(0.01), theirs.TopPLogitsWarper(0.01)),
    "top-p 0.6": (TopP(0.6), theirs.TopPLogitsWarper(0.6)),
    "top-p 0.95": (TopP(0.95), theirs.TopPLogitsWarper(0.95)),
}


def rows(tokens: Tensor, real: Tensor | None = None) -> Toy:
    toy = Toy(len(tokens), 1)
    toy.length = toy.begin = tokens.shape[1]
    toy._tokens, toy._real = tokens, real
    return toy


@pytest.mark.parametrize("name", PAIRS)
def test_it_gives_what_hugging_face_gives(name: str) -> None:
    ours, other = PAIRS[name]
    logits, tokens = 3 * torch.randn(50, 12), torch.randint(12, (50, 5))
    assert_close(ours(logits, rows(tokens)), other(tokens, logits))


def test_padding_is_no_repetition() -> None:
    tokens, real = torch.tensor([[7, 7, 2, 3, 2]]), torch.tensor([[False, False, True, True, True]])
    logits = torch.randn(1, 12)
    assert_close(
        RepetitionPenalty(2.0)(logits, rows(tokens, real)), RepetitionPenalty(2.0)(logits, rows(tokens[:, 2:]))
    )


def test_equal_logits_at_the_border_of_top_k_all_stay_and_top_p_keeps_one_at_least() -> None:
    logits = torch.zeros(1, 4)
    assert TopK(2)(logits, rows(torch.zeros(1, 1, dtype=torch.long))).isfinite().all()
    assert TopP(1.0)(logits, rows(torch.zeros(1, 1, dtype=torch.long))).isfinite().all()
    assert TopP(0.1)(logits, rows(torch.zeros(1, 1, dtype=torch.long))).isfinite().sum() == 1


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (RepetitionPenalty, 0.0, "repetition_penalty=0.0 must be positive"),
        (Temperature, 0.0, "temperature=0.0 is out of range.*or none for greedy"),
        (Temperature, 1e-42, "temperature=1e-42 is out of range"),
        (Temperature, math.nan, "temperature=nan is out of range"),
        (RepetitionPenalty, math.nan, "repetition_penalty=nan"),
        (TopK, 0, "top_k=0 keeps no token"),
        (TopP, 0.0, "top_p=0.0 is no share"),
        (TopP, 1.5, "top_p=1.5 is no share"),
    ],
)
def test_senseless_values_are_refused(kind, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(value)
