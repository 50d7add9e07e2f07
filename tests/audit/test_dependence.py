"""Dependence is what torch's own Jacobian says, and what no derivative shows."""

import pytest
import torch

from tests.audit.made import subject
from xformer.audit import dependence


def test_it_is_torch_s_jacobian() -> None:
    module = subject("NextToken").at(0)
    x = module.draw(1, 6)
    whole = torch.autograd.functional.jacobian(module, x)[0, :, :, 0]  # i features j features
    found = dependence.jacobian(module, x, range(6)) > 0
    torch.testing.assert_close(found, whole.abs().amax((1, 3)) > 0)
    torch.testing.assert_close(found, torch.ones(6, 6).tril(1) > 0)


@pytest.mark.parametrize(("window", "ahead"), [(1, 0), (3, 0), (5, 2), (64, 0)])
def test_reach_is_the_window(window: int, ahead: int) -> None:
    made = subject("Window", f"window={window}", f"ahead={ahead}")
    assert dependence.reach(made, 257, 0) == (window - 1, ahead, window - 1, ahead)


def test_what_fades_below_rounding_is_told_from_what_is_cut() -> None:
    back, ahead, clearly, _ = dependence.reach(subject("Recurrent"), 512, 0)
    assert (back, ahead) == (511, 0)
    assert 100 < clearly < 511


def test_a_leak_without_a_derivative_is_found() -> None:
    made = subject("ChosenByTheFuture")
    module = made.at(0)
    slopes = dependence.jacobian(module, module.draw(1, 9), range(9))
    assert (slopes.triu(1) == 0).all()
    assert dependence.future(made, 9, 1, 0).fails


def test_rows_and_what_says_nothing() -> None:
    assert dependence.other_rows(subject("BatchMean"), 3, 2, 0).fails
    assert not dependence.other_rows(subject("BatchNorm"), 3, 2, 0).fails
    assert dependence.other_rows(subject("BatchNorm"), 3, 2, 0, train=True).fails
    assert dependence.batch_size(subject("BatchMean"), 3, 2, 0).fails
    assert dependence.responds(subject("Constant"), 3, 2, 0).fails
    assert not dependence.responds(subject("Right"), 3, 2, 0).fails
