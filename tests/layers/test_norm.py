"""The norms, against their formulas."""

import torch
from torch.testing import assert_close

from tests.architecture.tiny import D_MODEL, randomised, stack
from xformer.architecture.encoder import Encoder
from xformer.layers.norm import norm_layer


def test_rms_norm_is_the_papers_formula() -> None:
    model = randomised(stack(Encoder, norm_layer="rms"))
    x = torch.randn(2, 3, D_MODEL)
    weight = model.tower.norm.weight
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    assert_close(model.tower.norm(x), expected)
    assert not any(name.endswith("norm.bias") for name, _ in model.named_parameters())


def test_layer_norm_centres_and_rms_norm_does_not() -> None:
    x = torch.randn(2, 3, 8) + 5
    centred = x - x.mean(-1, keepdim=True)
    assert_close(norm_layer("layer", 8)(x), centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt())
    assert_close(norm_layer("rms", 8)(x), x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt())
