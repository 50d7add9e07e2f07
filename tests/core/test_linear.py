"""The initial values of a linear layer."""

import pytest
import torch

from xformer.core.linear import Linear


@pytest.mark.parametrize("gain", [1.0, 0.25])
@pytest.mark.parametrize(("fan_in", "fan_out"), [(400, 900), (900, 400)])
def test_unit_variance_stays_but_for_the_gain(fan_in: int, fan_out: int, gain: float) -> None:
    layer = Linear(fan_in, fan_out, gain=gain)
    assert layer.weight.std().item() == pytest.approx(gain * fan_in**-0.5, rel=0.01)
    assert (layer.bias == 0).all()
    assert layer(torch.randn(200, fan_in)).std().item() == pytest.approx(gain, rel=0.02)


def test_it_is_drawn_anew_and_can_be_without_a_bias() -> None:
    layer = Linear(8, 8, bias=False)
    before = layer.weight.clone()
    layer.reset_parameters()
    assert layer.bias is None
    assert not torch.isclose(before, layer.weight).any()
