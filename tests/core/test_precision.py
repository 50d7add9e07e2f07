"""What has 16 bits is computed in 32, and what comes out is what went in."""

from typing import Any

import pytest
import torch
from torch import Tensor

from xformer.core.precision import at_least_float32, autocast_enabled, in_float32, split_precision, without_autocast

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_16_bits_become_32_and_the_rest_stays(dtype: torch.dtype) -> None:
    x = torch.randn(3).to(dtype)
    assert at_least_float32(x).dtype == (torch.float32 if x.itemsize == 2 else dtype)
    assert torch.equal(at_least_float32(x).to(dtype), x)


class Mixer:
    """Notes in what it computes."""

    @in_float32
    def mix(self, query: Tensor, key: Tensor, value: Tensor, *, about: list[Any]) -> Tensor:
        scores = query @ key.transpose(-1, -2)
        about.append((query.dtype, value.dtype, scores.dtype))
        return scores.softmax(-1) @ value


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_method_computes_in_float32_at_least_also_under_autocast(dtype: torch.dtype, autocast: bool) -> None:
    inputs = torch.randn(3, 1, 4, 8).to(dtype)
    about: list[Any] = []
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert autocast_enabled(CPU) == autocast
        mixed = Mixer().mix(*inputs, about=about)
    inner = torch.float64 if dtype == torch.float64 else torch.float32
    assert about == [(inner, inner, inner)]
    assert mixed.dtype == dtype
    exact = (inputs[0].double() @ inputs[1].double().transpose(-1, -2)).softmax(-1) @ inputs[2].double()
    torch.testing.assert_close(mixed, exact.to(dtype))  # rounded once, at the end


def test_autocast_is_off_inside_and_on_again_after() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        with without_autocast(CPU):
            assert not autocast_enabled(CPU)
        assert autocast_enabled(CPU)
    assert not autocast_enabled(torch.device("meta"))  # where there is no such thing


def test_halves_sum_to_twice_the_digits() -> None:
    x = torch.randn(1000)
    first, rest = split_precision(x, torch.bfloat16)
    assert first.dtype == rest.dtype == torch.bfloat16
    off, off_alone = (
        (parts - x.double()).abs() / x.abs() for parts in (first.double() + rest.double(), first.double())
    )
    assert off.max() < 2**-16 < 2**-10 < off_alone.max()
    (same,) = split_precision(x, torch.float32)
    assert same is x
