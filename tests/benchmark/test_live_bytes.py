"""Bytes are counted where a pencil counts them: what operations made and nobody has let go."""

import torch
from torch import Tensor

from xformer.benchmark.live_bytes import LiveBytes, extra_bytes


def test_the_peak_is_of_what_is_alive_at_once() -> None:
    def call() -> None:
        a = torch.zeros(100)  # 400
        b = a + 1  # 800
        del a
        c = torch.zeros(25)  # 500
        del b, c
        torch.zeros(150)  # 600

    assert extra_bytes(call) == 800


def test_views_and_what_was_given_count_nothing() -> None:
    given = torch.zeros(1000)

    def call() -> Tensor:
        return given.view(10, 100)[2:].T + torch.ones(1)

    assert extra_bytes(call) == 4 * (800 + 1)
    with LiveBytes() as live:
        held = given[5:], given.view(-1)
    assert (live.now, live.peak, len(held)) == (0, 0, 2)


def test_what_was_let_go_is_alive_no_more() -> None:
    with LiveBytes() as live:
        held = torch.zeros(10)
        assert live.now == 40
        more = torch.zeros(30, dtype=torch.float64)
        assert live.now == 280
        del more
        assert live.now == 40
        del held
    assert (live.now, live.peak) == (0, 280)


def test_the_backward_pass_and_autograd_functions_count() -> None:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(context, x: Tensor) -> Tensor:
            context.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(context, gradient: Tensor) -> Tensor:  # type: ignore[override]
            (x,) = context.saved_tensors
            large = torch.ones(5000)  # kept by nobody
            return 2 * x * gradient + 0 * large.sum()

    x = torch.zeros(10, requires_grad=True)
    assert extra_bytes(lambda: Square.apply(x).sum().backward()) > 20_000  # type: ignore[no-untyped-call]
