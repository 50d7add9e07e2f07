"""Exponents of what is known, and bytes that no machine disturbs."""

import math

import numpy as np
import pytest

from tests.audit.made import subject
from xformer.audit.growth import costs, fit, states


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_a_power_is_its_exponent(power: float) -> None:
    found = fit({n: 3.0 * n**power for n in (64, 128, 256, 512)})
    assert found.exponent == pytest.approx(power, abs=1e-9)
    assert found.high - found.low < 1e-5


def test_the_interval_holds_the_exponent_as_often_as_it_says() -> None:
    generator, inside = np.random.default_rng(0), 0
    for _ in range(1000):
        found = fit({n: float(n**1.5 * math.exp(0.1 * generator.standard_normal())) for n in (64, 128, 256, 512)})
        inside += found.low <= 1.5 <= found.high
    assert 930 <= inside <= 970


def test_few_lengths_are_not_fitted() -> None:
    assert str(fit({64: 1.0, 128: 2.0})) == "too few lengths to fit"


def test_memory_of_attention_is_quadratic_and_of_a_recurrence_linear() -> None:
    quadratic, linear = (costs(subject(name, "dim=8"), 1024, rounds=0)[1] for name in ("Both", "Recurrent"))
    assert 1.8 < quadratic.exponent < 2.1
    assert 0.9 < linear.exponent < 1.1


def test_a_cache_grows_and_a_state_does_not() -> None:
    assert states(subject("Right")).exponent == pytest.approx(1.0)
    assert states(subject("Recurrent")).exponent == 0.0
