"""The variants as plain modules: parity with torch's own, the defaults of `conf/`, and what is refused."""

import inspect
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.testing import assert_close

import xformer
from tests.architecture.tiny import copy_attention
from xformer.attention.base import Capable
from xformer.attention.mixer import TokenMixer
from xformer.config.groups import CONF
from xformer.config.variants import Variant, variants
from xformer.core.capability import Capability
from xformer.core.mask import Mask
from xformer.errors import ConfigError, IncompatibleError
from xformer.layers.multi_head import MultiHeadAttention

NAMES = list(variants())


def mixing(attend: TokenMixer) -> Capable:
    """What mixes the tokens: the attention, or the token mixer itself."""
    return attend.mix if isinstance(attend, MultiHeadAttention) else attend


@pytest.fixture(params=NAMES)
def variant(request: pytest.FixtureRequest) -> Variant:
    return Variant(request.param)


def file_of(variant: Variant) -> dict[str, Any]:
    found = OmegaConf.to_container(OmegaConf.load(CONF / "attention" / f"{variant.option}.yaml"))
    return {str(key): value for key, value in dict(found).items() if not str(key).startswith("_")}  # type: ignore[call-overload]


@pytest.mark.parametrize("causal", [False, True])
def test_full_attention_equals_torchs(causal: bool) -> None:
    ours, theirs = xformer.Full(16, 4, causal=causal), nn.MultiheadAttention(16, 4, batch_first=True)
    copy_attention(ours, theirs)
    x, later = torch.randn(3, 9, 16), torch.ones(9, 9, dtype=torch.bool).triu(1) if causal else None
    expected, _ = theirs(x, x, x, attn_mask=later)
    assert_close(ours(x), expected, atol=1e-5, rtol=1e-5)


def test_every_variant_attends_with_the_values_of_its_file(variant: Variant) -> None:
    attend, x = variant(d_model=16, num_heads=4), torch.randn(2, 70, 16)
    assert attend(x).shape == x.shape
    given = variant(d_model=16, num_heads=4, **file_of(variant))
    assert_close(given(x), attend(x), atol=0, rtol=0)


def test_help_shows_the_hyper_parameters_and_the_paper(variant: Variant) -> None:
    parameters = inspect.signature(variant).parameters
    defaults = {name: parameters[name].default for name in file_of(variant)}
    assert defaults == file_of(variant)
    assert list(parameters)[:2] == ["d_model", "num_heads"]
    module = inspect.getmodule(type(mixing(variant(16, 4))))
    assert (inspect.getdoc(variant) or "").startswith(inspect.getdoc(module) or "?")


def test_one_seed_gives_all_variants_the_same_projections(variant: Variant) -> None:
    ours, full, other = variant(16, 4, seed=3), xformer.Full(16, 4, seed=3), variant(16, 4, seed=4)
    shapes = {name: weight.shape for name, weight in full.named_parameters() if name.endswith("weight")}
    shared = [name for name, weight in ours.named_parameters() if shapes.get(name) == weight.shape]
    assert shared or not isinstance(ours, MultiHeadAttention)
    for name in shared:
        assert torch.equal(ours.get_parameter(name), full.get_parameter(name))
        assert not torch.equal(ours.get_parameter(name), other.get_parameter(name))


def test_causal_or_refused(variant: Variant) -> None:
    if Capability.CAUSAL not in type(mixing(variant(16, 4))).provides:
        with pytest.raises(IncompatibleError, match="cannot do CAUSAL"):
            variant(16, 4, causal=True)
        return
    attend, x = variant(16, 4, causal=True).eval(), torch.randn(2, 40, 16)
    before = attend(x)
    x[:, 30:] = torch.randn(2, 10, 16)
    assert_close(attend(x)[:, :30], before[:, :30])


def test_token_by_token_is_the_whole(variant: Variant) -> None:
    if Capability.INCREMENTAL not in type(mixing(variant(16, 4))).provides:
        return
    attend, x = variant(16, 4, causal=True).eval(), torch.randn(2, 30, 16)
    state = mixing(attend).init_state(30)
    steps = torch.cat([attend(x[:, i : i + 1], state=state) for i in range(30)], dim=1)
    assert_close(steps, attend(x), atol=1e-5, rtol=1e-4)


def test_padding_changes_nothing(variant: Variant) -> None:
    attend, x = variant(16, 4).eval(), torch.randn(1, 40, 16)
    valid = torch.arange(40)[None] < 25
    mask = Mask.consecutive(0, 40, causal=attend.context.causal, key_padding=valid)
    before = attend(x, mask=mask)
    x[:, 25:] = torch.nan
    assert_close(attend(x, mask=mask)[:, :25], before[:, :25])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"d_model": 17}, r"d_model=17 is not divisible by num_heads=4\."),
        ({"d_model": 0}, r"d_model=0 must be at least 1\."),
        ({"dropout": 1.0}, r"dropout=1\.0 must be "),
        ({"feature": 9}, r"attention\.feature is not a parameter of .*; did you mean features\?"),
        ({"features": 0}, r"attention\.features=0 must be at least 1\."),
        ({"key_value_heads": 3}, r"key_value_heads=3 does not divide .*heads=4"),
    ],
)
def test_a_wrong_value_is_told_in_a_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        xformer.Performer(**{"d_model": 16, "num_heads": 4, **arguments})
