"""Influence against the whole Jacobian in float64, for every token mixer, and the error of its estimates."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.architecture.tiny import encoder_decoder, randomised, tokens
from tests.contracts.variants import MIXERS, VARIANTS, build_mixer, forms
from xformer.attention.mixer import TokenMixer
from xformer.core.mask import Mask
from xformer.inspection import influence_maps
from xformer.inspection.attention_calls import LayerCall, layer_calls
from xformer.inspection.influence_maps import influence_map

LENGTH = 6


def call_of(mixer: TokenMixer, x: Tensor, **about: Any) -> LayerCall:
    mask = Mask.consecutive(0, x.shape[1], causal=mixer.context.causal, **about)
    return LayerCall("attention", 0, mixer, x, {"mask": mask, "position": None, "layer": 0, "state": None})


def drawn(batch: int, length: int = LENGTH, width: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, length, width, dtype=torch.float64, generator=generator)


def jacobian_norms(call: LayerCall) -> Tensor:
    """|d y_t / d x_s|_F by torch's own Jacobian, (batch 1 t s)."""
    function = lambda x: call.mixer(x, **call.arguments)  # noqa: E731
    whole = torch.autograd.functional.jacobian(function, call.x)  # b t d b s d
    same = torch.stack([whole[row, :, :, row] for row in range(len(call.x))])
    return same.square().sum((2, 4)).sqrt()[:, None]


@pytest.mark.parametrize(("name", "causal"), [(name, causal) for name in VARIANTS for causal in forms(name)])
def test_with_all_probes_it_is_the_norm_of_the_jacobian(
    name: str, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(influence_maps, "TOKENS", 60)  # several passes, the last one not full
    call = call_of(build_mixer(name, causal=causal).double(), drawn(2))
    found = influence_map(call)
    assert found.error == 0
    assert_close(found.influence, jacobian_norms(call), atol=1e-9, rtol=1e-7)
    if causal:
        assert (found.influence.triu(1) == 0).all()
    assert not any(parameter.grad is not None for parameter in call.mixer.parameters())


@pytest.mark.parametrize("name", MIXERS)
def test_padding_has_no_influence(name: str) -> None:
    valid = torch.arange(LENGTH) < torch.tensor([LENGTH, 4])[:, None]
    call = call_of(build_mixer(name, causal=True).double(), drawn(2), key_padding=valid)
    found = influence_map(call)
    assert_close(found.influence, jacobian_norms(call), atol=1e-9, rtol=1e-7)
    assert (found.influence[1, 0, :4, 4:] == 0).all()


@pytest.mark.parametrize("name", MIXERS)
def test_the_error_of_an_estimate_is_what_it_is_off_by(name: str) -> None:
    """Over 60 seeds the root mean square of what it is off by is the stated error's, within a third."""
    call = call_of(build_mixer(name, causal=True, heads=4).double(), drawn(1, width=16))
    exact = influence_map(call).influence
    estimates = [influence_map(call, probes=6, seed=seed) for seed in range(60)]
    off = torch.stack([(each.influence - exact).square().sum() / exact.square().sum() for each in estimates])
    stated = torch.tensor([each.error for each in estimates], dtype=torch.float64)
    assert 2 / 3 < float(off.mean().sqrt() / stated.square().mean().sqrt()) < 3 / 2
    squared = torch.stack([each.influence.square() for each in estimates]).mean(0)
    assert float((squared - exact.square()).norm() / exact.square().norm()) < 0.1  # without bias
    assert torch.equal(influence_map(call, probes=6).influence, influence_map(call, probes=6).influence)


def test_long_inputs_have_fewer_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    call = call_of(build_mixer("mamba2", causal=True), drawn(1).float())
    assert influence_map(call).error == 0
    monkeypatch.setattr(influence_maps, "WORK", 5 * LENGTH**2)
    assert 0 < influence_map(call).error < 0.5


def test_cross_attention_is_influenced_by_its_memory() -> None:
    model = randomised(encoder_decoder())
    source, target = tokens(2, 9), tokens(2, 5, seed=1)
    padding = torch.arange(9) < torch.tensor([9, 4])[:, None]
    *_, call = layer_calls(model, lambda: model(source, padding, target))
    assert call.slot == "cross_attention"
    found = influence_map(call).influence
    assert found.shape == (2, 1, 5, 9)
    assert (found[1, :, :, 4:] == 0).all()
    assert (found[0] > 0).all()


def test_it_can_be_measured_in_inference_mode() -> None:
    mixer, x = build_mixer("gla", causal=True), drawn(1).float()
    expected = influence_map(call_of(mixer, x)).influence
    with torch.inference_mode():
        assert_close(influence_map(call_of(mixer, x.clone())).influence, expected)
