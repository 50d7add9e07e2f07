"""Schedules against the formulas they cite."""

import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xformer.optimization.schedule import constant, inverse_sqrt, warmup_cosine, warmup_linear

STEPS = st.integers(0, 5000)


@given(STEPS, st.integers(1, 500))
def test_inverse_sqrt_is_the_papers_rate_over_its_peak(step: int, warmup: int) -> None:
    n, d_model = step + 1, 512
    paper = d_model**-0.5 * min(n**-0.5, n * warmup**-1.5)
    peak = (d_model * warmup) ** -0.5
    assert inverse_sqrt(step, 5000, warmup_steps=warmup) == pytest.approx(paper / peak)


@pytest.mark.parametrize("schedule", [warmup_linear, warmup_cosine])
def test_descents_reach_their_ends(schedule) -> None:
    factor = partial(schedule, warmup_steps=100, final_ratio=0.1)
    assert factor(0, 1000) == pytest.approx(0.01)
    assert factor(49, 1000) == pytest.approx(0.5)
    assert factor(100, 1000) == pytest.approx(1.0)
    assert factor(1000, 1000) == pytest.approx(0.1)
    assert factor(2000, 1000) == pytest.approx(0.1)
    middle = {warmup_linear: 0.55, warmup_cosine: 0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2}[schedule]
    assert factor(550, 1000) == pytest.approx(middle)


@given(STEPS)
def test_descents_never_rise_after_the_warmup(step: int) -> None:
    for schedule in (warmup_linear, warmup_cosine):
        factor = partial(schedule, warmup_steps=10, final_ratio=0.0)
        assert factor(step + 11, 4000) <= factor(step + 10, 4000) + 1e-12


def test_constant_warms_up_and_stays() -> None:
    assert [constant(step, 100, warmup_steps=4) for step in (0, 1, 3, 4, 99)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    assert constant(0, 100, warmup_steps=0) == 1.0
