"""Each filter against Hugging Face's, and what it must refuse."""

import math
from fractions import Fraction
from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close
from transformers.generation import logits_process as theirs

from tests.generation.test_beam_search import Toy
from xformer.errors import ConfigError
from xformer.generation.logits_processors import RepetitionPenalty, Temperature, TopK, TopP

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


def rows(tokens: Tensor, valid: Tensor | None = None) -> Toy:
    toy = Toy(len(tokens), 1)
    toy.length = toy.begin = tokens.shape[1]
    toy._tokens, toy._valid = tokens, valid
    return toy


@pytest.mark.parametrize("name", PAIRS)
def test_it_gives_what_hugging_face_gives(name: str) -> None:
    ours, other = PAIRS[name]
    logits, tokens = 3 * torch.randn(50, 12), torch.randint(12, (50, 5))
    assert_close(ours(logits, rows(tokens)), other(tokens, logits))


def test_padding_is_no_repetition() -> None:
    tokens, valid = torch.tensor([[7, 7, 2, 3, 2]]), torch.tensor([[False, False, True, True, True]])
    logits = torch.randn(1, 12)
    assert_close(
        RepetitionPenalty(2.0)(logits, rows(tokens, valid)), RepetitionPenalty(2.0)(logits, rows(tokens[:, 2:]))
    )


def test_equal_logits_at_the_border_of_top_k_all_stay_and_top_p_keeps_one_at_least() -> None:
    logits = torch.zeros(1, 4)
    assert TopK(2)(logits, rows(torch.zeros(1, 1, dtype=torch.long))).isfinite().all()
    assert TopP(1.0)(logits, rows(torch.zeros(1, 1, dtype=torch.long))).isfinite().all()
    assert TopP(0.1)(logits, rows(torch.zeros(1, 1, dtype=torch.long))).isfinite().sum() == 1


def kept(logits: Tensor) -> list[int]:
    return logits[0].isfinite().nonzero()[:, 0].tolist()


ANY_ROW = rows(torch.zeros(1, 1, dtype=torch.long))
COUNTS = st.lists(st.integers(1, 50), min_size=1, max_size=12)


def logits_of(counts: list[int], shift: float = 0.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """A row whose softmax is `counts` over their sum, but for rounding."""
    return (torch.tensor([counts], dtype=torch.float64).log() + shift).to(dtype)


def fewest(counts: list[int], p: Fraction) -> list[int]:
    """The tokens of the smallest set that reaches p, in exact arithmetic."""
    order = sorted(range(len(counts)), key=lambda token: -counts[token])
    sums = accumulate(Fraction(counts[token], sum(counts)) for token in order)
    return sorted(order[: 1 + next(place for place, reached in enumerate(sums) if reached >= p)])


@pytest.mark.parametrize(("weights", "p", "tokens"), [([3, 1, 1, 5], 0.8, [0, 3]), ([1, 2, 3, 4], 0.9, [1, 2, 3])])
def test_top_p_stops_where_its_sum_is_exactly_p(weights: list[int], p: float, tokens: list[int]) -> None:
    assert kept(TopP(p)(logits_of(weights), ANY_ROW)) == tokens


@given(COUNTS, st.fractions(0, 1, max_denominator=20).filter(bool), st.integers(0, 11), st.floats(-80, 80))
def test_top_p_keeps_the_smallest_set_of_exact_arithmetic(counts, p, place, shift) -> None:
    ordered = sorted(counts, reverse=True)
    border = Fraction(sum(ordered[: place % len(counts) + 1]), sum(counts))  # where rounding could matter
    for share in (p, border):
        assert kept(TopP(float(share))(logits_of(counts, shift), ANY_ROW)) == fewest(counts, share)


@given(COUNTS, st.integers(1, 13))
def test_top_k_keeps_what_is_as_likely_as_the_kth(counts: list[int], k: int) -> None:
    least = sorted(counts, reverse=True)[min(k, len(counts)) - 1]
    assert kept(TopK(k)(logits_of(counts), ANY_ROW)) == [i for i, count in enumerate(counts) if count >= least]


@given(COUNTS, st.floats(0.05, 20))
def test_a_temperature_is_a_power_of_the_probabilities(counts: list[int], temperature: float) -> None:
    powers = torch.tensor([[count ** (1 / temperature) for count in counts]], dtype=torch.float64)
    found = Temperature(temperature)(logits_of(counts), ANY_ROW).double().softmax(-1)
    assert_close(found, powers / powers.sum(), rtol=1e-4, atol=1e-6)


def test_a_large_vocabulary_of_bfloat16_logits_loses_no_share_to_rounding() -> None:
    logits = torch.zeros(1, 4096, dtype=torch.bfloat16)
    assert len(kept(TopP(0.5)(logits, ANY_ROW))) == 2048  # sums of bfloat16 stop growing long before


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (RepetitionPenalty, 0.0, "repetition_penalty=0.0 must be positive"),
        (Temperature, 0.0, "temperature=0.0 is out of range.*or none for greedy"),
        (Temperature, 1e-42, "temperature=1e-42 is out of range"),
        (Temperature, math.nan, "temperature=nan is out of range"),
        (RepetitionPenalty, math.nan, "repetition_penalty=nan"),
        (TopK, 0, "top_k=0 keeps no token"),
        (TopP, 0.0, "top_p=0.0 is out of range"),
        (TopP, 1.5, "top_p=1.5 is out of range"),
    ],
)
def test_senseless_values_are_refused(kind, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(value)
