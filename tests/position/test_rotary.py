"""Rotary positions against complex multiplication."""

import pytest
import torch
from torch.testing import assert_close

from xformer.errors import ConfigError
from xformer.position.base import PositionContext
from xformer.position.rotary import Rotary


def rotary(head_dim=8, fraction=1.0, base=10000.0):
    return Rotary(PositionContext(2 * head_dim, 2, head_dim, 1, 16, True), base=base, fraction=fraction)


@pytest.mark.parametrize("positions", [torch.arange(5)[None], torch.tensor([[0, 0, 0, 1, 2], [3, 90, 7, 1000, 5]])])
def test_multiplies_pairs_by_a_unit_complex_number(positions):
    x = torch.randn(2, 2, 5, 8, dtype=torch.float64)
    pairs = torch.complex(x[..., :4], x[..., 4:])
    frequencies = torch.tensor([10000 ** (-2 * i / 8) for i in range(4)], dtype=torch.float64)
    turned = pairs * torch.polar(torch.ones((), dtype=torch.float64), positions[:, None, :, None] * frequencies)

    assert_close(rotary().rotate(x, positions), torch.cat((turned.real, turned.imag), dim=-1))


def test_is_the_usual_rotate_half_form():
    x, positions = torch.randn(1, 2, 6, 8), torch.arange(6)[None]
    frequencies = 1.0 / 10000 ** (torch.arange(0, 8, 2) / 8)
    angles = torch.outer(positions[0], frequencies).repeat(1, 2)
    half_turned = torch.cat((-x[..., 4:], x[..., :4]), dim=-1)

    assert_close(rotary().rotate(x, positions), x * angles.cos() + half_turned * angles.sin())


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_scores_depend_on_the_distance_alone_and_norms_stay(fraction):
    query, key = torch.randn(2, 1, 2, 5, 8, dtype=torch.float64)
    scheme, positions = rotary(fraction=fraction), torch.arange(5)[None]

    def scores(offset):
        turned = [scheme.rotate(x, positions + offset) for x in (query, key)]
        return turned[0] @ turned[1].transpose(-1, -2)

    assert_close(scores(0), scores(977))
    assert not torch.allclose(scores(0), query @ key.transpose(-1, -2))
    assert_close(scheme.rotate(query, positions).norm(dim=-1), query.norm(dim=-1))


def test_a_fraction_leaves_the_other_features_alone():
    x = torch.randn(1, 2, 5, 8)
    turned = rotary(fraction=0.5).rotate(x, torch.arange(5)[None])

    assert torch.equal(turned[..., 4:], x[..., 4:])
    assert_close(turned[..., :4], rotary(head_dim=4).rotate(x[..., :4], torch.arange(5)[None]))


def test_angles_are_float32_whatever_the_model():
    """At position 4001 a bfloat16 angle would be off by several turns."""
    x, positions = torch.randn(1, 2, 1, 8), torch.tensor([[4001]])
    scheme = rotary().to(torch.bfloat16)

    turned = scheme.rotate(x.bfloat16(), positions)
    assert turned.dtype == torch.bfloat16
    assert_close(turned, scheme.rotate(x.bfloat16().float(), positions).bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(scheme.rotate(x, positions), rotary().rotate(x, positions))


@pytest.mark.parametrize(("head_dim", "fraction"), [(7, 1.0), (8, 0.4), (8, 0.1)])
def test_refuses_what_does_not_pair_up(head_dim, fraction):
    with pytest.raises(ConfigError, match=r"position\.fraction="):
        rotary(head_dim, fraction)
