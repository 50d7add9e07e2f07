"""Curves that are power laws are found again; others are met as well as the form allows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from xformer.studies.power_law import fit_power_law

SIZES = np.array([1e4, 5e4, 2e5, 1e6])


@given(offset=st.floats(0.0, 5.0), drop=st.floats(0.05, 5.0), exponent=st.floats(0.05, 1.5), count=st.integers(3, 5))
@settings(max_examples=30, deadline=None)
def test_a_known_curve_is_found_again(offset: float, drop: float, exponent: float, count: int) -> None:
    scales = np.geomspace(1e4, 1e6, count)
    true = offset + drop * (scales / 1e4) ** -exponent
    found = fit_power_law(scales, true)
    np.testing.assert_allclose(found.at(scales), true, rtol=1e-5, atol=1e-6 * drop)
    further = offset + drop * (2e6 / 1e4) ** -exponent
    assert float(found.at(2e6)) == pytest.approx(further, rel=1e-3, abs=1e-3 * drop)


def test_it_is_the_least_squares_fit() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        values = 1.5 + 2 * (SIZES / 1e4) ** -0.3 + rng.normal(size=4) * 0.02
        found = fit_power_law(SIZES, values)

        def left(parameters: np.ndarray, values: np.ndarray = values) -> np.ndarray:
            offset, factor, exponent = parameters
            return offset + factor * (SIZES / 1e4) ** -exponent - values

        other = least_squares(left, [1.0, 2.0, 0.5], bounds=([0, 0, 0.01], [np.inf, np.inf, 4]), xtol=1e-12, ftol=1e-12)
        ours = float(((found.at(SIZES) - values) ** 2).sum())
        assert ours <= 2 * other.cost * (1 + 1e-4) + 1e-12


def test_many_fits_at_once_are_the_fits_one_by_one() -> None:
    rng = np.random.default_rng(0)
    rows = 1.5 + 2 * (SIZES / 1e4) ** -0.3 + rng.normal(size=(2, 3, 4)) * 0.02
    together = fit_power_law(SIZES, rows)
    assert together.offset.shape == (2, 3)
    assert together.at([1e5, 1e6]).shape == (2, 3, 2)
    for index in np.ndindex(2, 3):
        np.testing.assert_allclose(fit_power_law(SIZES, rows[index]).at(SIZES), together.at(SIZES)[index], rtol=1e-12)


def test_a_loss_that_rises_is_a_line() -> None:
    found = fit_power_law(SIZES, [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(found.at(SIZES), 2.5)
    assert (float(found.offset), float(found.factor)) == (2.5, 0.0)


@pytest.mark.parametrize("scales", [[1e4, 1e5], [1e4, 1e4, 1e5], [0.0, 1e4, 1e5]])
def test_fewer_than_three_sizes_are_refused(scales: list[float]) -> None:
    with pytest.raises(ValueError, match="needs 3 different scales above 0"):
        fit_power_law(scales, scales)
