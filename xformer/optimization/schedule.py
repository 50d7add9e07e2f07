"""Learning-rate schedules: the factor on the peak learning rate at each step.

All warm up linearly over `warmup_steps` optimiser steps, then differ. `total` is the number of steps of the whole run.
"""

import math
from collections.abc import Callable
from typing import Annotated

from annotated_types import Ge, Interval

Schedule = Callable[[int, int], float]
"""What `conf/schedule/*.yaml` instantiates to: (step, total) -> factor."""


def constant(step: int, total: int, *, warmup_steps: Annotated[int, Ge(0)]) -> float:
    """Constant schedule: linear warmup, then 1."""
    return _warmup(step, warmup_steps)


def warmup_linear(
    step: int, total: int, *, warmup_steps: Annotated[int, Ge(0)], final_ratio: Annotated[float, Interval(ge=0, le=1)]
) -> float:
    """Linear decay from 1 to `final_ratio` after a linear warmup (BERT)."""
    return _warmup(step, warmup_steps) * _descend(1 - _progress(step, total, warmup_steps), final_ratio)


def warmup_cosine(
    step: int, total: int, *, warmup_steps: Annotated[int, Ge(0)], final_ratio: Annotated[float, Interval(ge=0, le=1)]
) -> float:
    """Cosine decay from 1 to `final_ratio` after warmup (Loshchilov & Hutter 2017, equation 5, without restarts)."""
    cosine = (1 + math.cos(math.pi * _progress(step, total, warmup_steps))) / 2
    return _warmup(step, warmup_steps) * _descend(cosine, final_ratio)


def inverse_sqrt(step: int, total: int, *, warmup_steps: Annotated[int, Ge(0)]) -> float:
    """Inverse square root decay, sqrt(warmup_steps / step), after warmup (Vaswani et al. 2017, equation 3, peak 1).

    The paper's own rate is this with a peak of (d_model * warmup_steps) ** -0.5: 7e-4 at 512 and 4000.
    """
    return min(_warmup(step, warmup_steps), math.sqrt(max(warmup_steps, 1) / (step + 1)))


def _warmup(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / max(warmup_steps, 1))


def _progress(step: int, total: int, warmup_steps: int) -> float:
    return min(1.0, max(0.0, (step - warmup_steps) / max(1, total - warmup_steps)))


def _descend(share: float, final_ratio: float) -> float:
    return final_ratio + (1 - final_ratio) * share
