"""What a name and its arguments become, and what is said of a name that is none."""

import re

import pytest
import torch
from torch import nn

from tests.audit.planted import Window
from xformer.audit.target import find_class, find_object, make_target, parse, signature_of, takes
from xformer.errors import ConfigError


def test_values_are_read_as_yaml() -> None:
    passed = parse(
        ["dim=64", "causal=true", "ratio=0.5", "name=relu", "sizes=[1, 2]", "no=null", "kind=torch.bfloat16"]
    )
    assert passed == {
        "dim": 64,
        "causal": True,
        "ratio": 0.5,
        "name": "relu",
        "sizes": [1, 2],
        "no": None,
        "kind": torch.bfloat16,
    }


def test_what_has_to_be_passed_is_guessed_and_what_is_passed_wins() -> None:
    target = make_target("torch.nn.MultiheadAttention", ["num_heads=2"])
    assert target.arguments == {"embed_dim": 32, "num_heads": 2}
    assert target.guessed == ("embed_dim",)
    assert target.width == 32
    module, config = target.build()
    assert isinstance(module, nn.MultiheadAttention)
    assert config is None


@pytest.mark.parametrize("path", ["xformer.attention.mamba2.Mamba2", "xformer.Mamba2"])
def test_a_class_of_ours_is_built_as_its_variant(path: str) -> None:
    made = make_target(path, ["state_size=4"])
    assert made.path == "xformer.Mamba2"
    assert made.arguments == {"d_model": 32, "num_heads": 4, "state_size": 4}
    module, _ = made.build()
    assert module(torch.zeros(1, 3, 32)).shape == (1, 3, 32)


def test_a_class_that_is_no_option_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"ToyMixer is built from the context of a layer.*add conf/attention/NAME"):
        make_target("tests.contracts.toy_mixer.ToyMixer", [])


def test_a_default_says_the_width() -> None:
    assert make_target("tests.audit.planted.Window", []).width == 16


def test_what_a_constructor_hands_on_is_what_its_base_takes() -> None:
    assert {"input_size", "hidden_size", "num_layers"} <= set(takes(nn.GRU))
    assert make_target("torch.nn.GRU", ["hidden_size=8"]).width == 32


def test_a_configuration_object_is_made_small_and_takes_what_the_class_does_not() -> None:
    target = make_target("transformers.models.llama.modeling_llama.LlamaAttention", ["rope_theta=100.0"])
    assert target.arguments == {"layer_idx": 0}
    assert target.config_arguments["hidden_size"] == 32
    assert target.config_arguments["rope_theta"] == 100.0
    assert target.package == "transformers"


def test_its_lines_make_the_same() -> None:
    space: dict[str, object] = {}
    exec("\n".join(make_target("tests.audit.planted.Window", ["window=5"]).source()), space)
    assert isinstance(space["module"], Window)
    assert space["module"].window == 5


def test_a_function_that_makes_a_module_will_do() -> None:
    assert isinstance(make_target("tests.audit.test_target.make_linear", ["size=3"]).build()[0], nn.Linear)


def make_linear(size: int = 2) -> nn.Module:
    return nn.Linear(size, size)


@pytest.mark.parametrize(
    ("path", "passed", "says"),
    [
        ("linear", [], "linear is not of the form PACKAGE.NAME, such as torch.nn.MultiheadAttention."),
        ("nosuchpackage.Class", [], "there is no package nosuchpackage; install it or correct the name."),
        ("torch.nn.MultiHeadAttention", [], "torch.nn has no MultiHeadAttention; did you mean MultiheadAttention"),
        ("torch.Tensor", [], "torch.Tensor is the class Tensor; name a class of torch.nn.Module"),
        ("torch.pi", [], "torch.pi is a float; name a class"),
        ("torch.nn.GRU", ["hidden"], "hidden is not of the form key=value"),
        ("torch.nn.GRU", ["hidden_size=[1"], "hidden_size=[1: [1 is not a YAML value"),
        ("torch.nn.TransformerEncoderLayer", ["heads=3"], "does not take heads; it takes d_model=..., nhead=..., "),
        (
            "torch.nn.Conv1d",
            [],
            "needs in_channels, out_channels, kernel_size, which cannot be guessed; pass in_channels=VALUE ",
        ),
        ("torch.nn.MultiheadAttention", ["num_heads=5"], "cannot be built with embed_dim=32, num_heads=5 (Assertion"),
        ("torch.nn.Linear", [], "torch.nn.Linear needs in_features, out_features, which cannot be guessed; pass "),
        ("torch.nn.Linear", ["in_features=3"], "torch.nn.Linear needs out_features, which cannot be guessed; pass "),
        ("tests.audit.planted.ExitsWhenBuilt", [], "ExitsWhenBuilt cannot be built with no arguments (SystemExit: 7)"),
        ("builtins.dict", [], "builtins.dict is the class dict; name a class"),
    ],
)
def test_bad_input_is_one_sentence(path: str, passed: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        make_target(path, passed).build()
    assert "\n" not in str(caught.value)


def test_what_is_found() -> None:
    assert find_class("torch.nn.GRU") is nn.GRU
    assert find_object("tests.audit.planted:cross", "--call").__name__ == "cross"
    assert signature_of(Window) == "dim, window, ahead"
