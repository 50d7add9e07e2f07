"""Gates of state-space models and their initial values."""

import torch
from torch import nn
from torch.testing import assert_close

from xformer.attention.kernels.linear_recurrence.time_step import (
    SMALLEST,
    draw_rate,
    draw_time_step,
    time_step,
)


def test_time_steps_begin_log_uniform() -> None:
    bias = nn.Parameter(torch.empty(4000, dtype=torch.float64))
    torch.manual_seed(0)
    draw_time_step(bias, 0.001, 0.1)
    step = time_step(torch.zeros(1, 1, 4000, dtype=torch.float64), bias, None).flatten().log10()
    assert -3 <= step.min() < -2.99
    assert -1.01 < step.max() <= -1
    assert_close(step.quantile(0.25), torch.tensor(-2.5, dtype=torch.float64), atol=0.05, rtol=0)


def test_no_first_time_step_is_below_the_smallest() -> None:
    bias = nn.Parameter(torch.empty(100))
    draw_time_step(bias, 1e-9, 1e-8)
    assert_close(torch.nn.functional.softplus(bias), torch.full((100,), SMALLEST))


def test_rates_begin_uniform() -> None:
    rate = nn.Parameter(torch.empty(4000))
    torch.manual_seed(0)
    draw_rate(rate, 1.0, 16.0)
    assert_close(rate.exp().quantile(torch.tensor([0.0, 0.5, 1.0])), torch.tensor([1.0, 8.5, 16.0]), atol=0.4, rtol=0)


def test_no_time_passes_at_padding() -> None:
    step = time_step(torch.randn(2, 3, 5), torch.randn(5), torch.tensor([[True, False, True], [False, False, True]]))
    assert step.shape == (2, 5, 3, 1)
    assert ((step == 0)[:, 0, :, 0] == torch.tensor([[False, True, False], [True, True, False]])).all()
