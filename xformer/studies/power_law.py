"""A power law with an offset, `L(N) = E + A N^-a`, fitted to a loss by scale (parameters, FLOPs).

The form of Hestness et al. 2017 and Hoffmann et al. 2022: `E` is the loss that no scale goes below, `a` how fast the
rest falls. Least squares of the losses, with `E >= 0`, `A >= 0` and `0.01 <= a <= 4`. For a fixed exponent, offset and
factor follow in closed form, so that the search is over one number, on a grid that is refined: no start value, no local
optimum, and thousands of resamples at once.

Three sizes are met exactly by a curve that falls and bends as a power law does, and so cannot contradict it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FEWEST = 3
_SLOWEST, _FASTEST = 0.01, 4.0
_GRID, _FINER, _ROUNDS = 65, 9, 8


@dataclass(frozen=True)
class PowerLaw:
    """One curve, or as many as were fitted at once.

    Attributes:
        offset: `E`, of the shape of the fits.
        factor: `A` for scales in units of `unit`.
        exponent: `a`.
        unit: the geometric mean of the scales fitted to.
    """

    offset: Array
    factor: Array
    exponent: Array
    unit: float

    def at(self, scales: Any) -> Array:
        """The values at some scales: the shape of the fits, then that of the scales."""
        relative = np.asarray(scales, dtype=float) / self.unit
        powers = np.power.outer(relative, -self.exponent)
        values = np.asarray(self.offset + self.factor * powers)
        return np.moveaxis(values, range(relative.ndim), range(-relative.ndim, 0))


def fit_power_law(scales: Any, values: Any) -> PowerLaw:
    """Fit a curve to the values at some scales.

    Args:
        scales: of shape (sizes,), positive, three different ones at least.
        values: of shape (..., sizes); each row is fitted by itself.

    Raises:
        ValueError: there are fewer than three scales, or one is not positive.
    """
    sizes, rows = np.asarray(scales, dtype=float), np.asarray(values, dtype=float)
    if len(set(sizes.tolist())) < FEWEST or not (sizes > 0).all():
        raise ValueError(f"a power law with an offset needs {FEWEST} different scales above 0, and these are {sizes}")
    unit = float(np.exp(np.log(sizes).mean()))
    flat = rows.reshape(-1, sizes.size)
    # In the first round all rows have one grid; then each has its own, between the neighbours of its best exponent.
    grid = np.broadcast_to(np.geomspace(_SLOWEST, _FASTEST, _GRID), (len(flat), _GRID))
    for _ in range(_ROUNDS):
        offset, factor, error = _linear(sizes / unit, flat, grid)
        best = error.argmin(axis=1)
        each = np.arange(len(flat))
        found = tuple(part[each, best].reshape(rows.shape[:-1]) for part in (offset, factor, grid))
        low, high = grid[each, np.maximum(best - 1, 0)], grid[each, np.minimum(best + 1, grid.shape[1] - 1)]
        grid = np.geomspace(low, high, _FINER, axis=1)
    return PowerLaw(found[0], found[1], found[2], unit)


def _linear(relative: Array, rows: Array, exponents: Array) -> tuple[Array, Array, Array]:
    """The best offset and factor for each row and exponent, and the squared error: of shape (rows, exponents)."""
    powers = relative ** -exponents[..., None]  # rows, exponents, sizes
    mean, average = powers.mean(-1), rows.mean(-1, keepdims=True)
    apart = powers - mean[..., None]
    factor = np.maximum((apart * rows[:, None]).sum(-1) / (apart**2).sum(-1), 0.0)
    offset = average - factor * mean
    through_zero = (powers * rows[:, None]).sum(-1) / (powers**2).sum(-1)
    factor, offset = np.where(offset < 0, np.maximum(through_zero, 0.0), factor), np.maximum(offset, 0.0)
    error = ((offset[..., None] + factor[..., None] * powers - rows[:, None]) ** 2).sum(-1)
    return offset, factor, error
