"""Every yaml composes, instantiates and matches its constructor; every mistake is named before anything loads."""

import functools
from copy import deepcopy
from typing import Any

import pytest
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf

from tests.conftest import ComposeJob
from xformer.config.compose import compose_config
from xformer.config.groups import CONF, groups
from xformer.config.plan import Plan
from xformer.config.validate import _parameters, instantiate_node, target, validate
from xformer.errors import ConfigError, XformerError

OPTIONS = [(group, option) for group, options in groups().items() for option in options]
PLAIN = [  # files that are one node; the others are mappings of nodes, or whole experiments
    (group, option) for group, option in OPTIONS if group not in {"callbacks", "logger", "experiment", "debug", "task"}
]


_composed = functools.cache(compose_config)


def load(group: str, option: str) -> DictConfig:
    node = deepcopy(_composed((f"{group}={option}",))[group])
    assert isinstance(node, DictConfig)
    return node


@pytest.mark.parametrize(("group", "option"), PLAIN)
def test_keys_are_exactly_the_constructors_keywords(group: str, option: str) -> None:
    node = load(group, option)
    found = target(node)
    keys = {str(key) for key in node if not str(key).startswith("_")}
    if found.__module__.startswith("xformer."):
        assert keys == set(_parameters(found))
    else:
        assert keys <= set(_parameters(found))


@pytest.mark.parametrize(("group", "option"), [o for o in PLAIN if o[0] not in {"architecture", "data"}])
def test_every_node_instantiates(group: str, option: str) -> None:
    assert instantiate_node(load(group, option)) is not None


@pytest.mark.parametrize(("group", "option"), [o for o in OPTIONS if o[0] not in {"experiment", "debug"}])
def test_every_option_composes_and_is_valid(group: str, option: str, compose_job: ComposeJob) -> None:
    validate(compose_job(f"{group}={option}").config)


def test_dimensions_stand_once() -> None:
    dimensions = {"d_model", "layers", "heads", "feed_forward"}
    for file in CONF.rglob("*.yaml"):
        if file.parent.name in {"size", "experiment"} or file.name == "benchmark.yaml":  # which measures kernels
            continue
        node = OmegaConf.load(file)
        assert not [key for key in node if key in dimensions and isinstance(node[key], int)], file


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.lr=abc", ["optimizer.lr=abc", "float"]),
        ("seed=x", ["seed=x", "int"]),
        ("architecture.norm=middle", ["architecture.norm=middle", "pre, post"]),
        ("trainer.max_steps=many", ["trainer.max_steps=many", "int"]),
        ("attention._target_=os.system", ["_target_=os.system", "xformer."]),
        ("attention._target_=xformer.attention.full.Fool", ["xformer.attention.full.Fool", "cannot be imported"]),
        ("+foo=1", ["foo is not a key"]),
        ("+attention.rank=3", ["attention.rank", "Full"]),
        ("~data.max_depth", ["data.max_depth is missing"]),
        ("data.max_depth=???", ["data.max_depth is not set"]),
        ("optimizer.lr=${nope}", ["optimizer.lr cannot be resolved", "nope"]),
        ("+callbacks.finite_loss.evry=1", ["evry", "every"]),
    ],
)
def test_a_bad_key_type_or_value_is_named(override: str, words: list[str], compose_job: ComposeJob) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(compose_job(override).config)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("architecture", ["encoder", "encoder_decoder"])
@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "decoder_attention=hybrid",
            "decoder_attention=hybrid does not choose an option; on the command line, write "
            "attention@decoder_attention=hybrid.",
        ),
        (
            "cross_attention=linfomer",
            "cross_attention=linfomer does not choose an option; on the command line, write "
            "attention@cross_attention=... with one of its options; did you mean linformer?",
        ),
        (
            "decoder_position=rotary",
            "decoder_position=rotary does not choose an option; on the command line, write "
            "position@decoder_position=rotary.",
        ),
    ],
)
def test_a_value_in_place_of_a_slots_option_is_refused(
    override: str, sentence: str, architecture: str, compose_job: ComposeJob
) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(compose_job(f"architecture={architecture}", override).config)
    assert str(caught.value) == sentence


def test_a_misspelt_key_inside_a_file_is_refused(compose_job: ComposeJob) -> None:
    config = compose_job().config
    OmegaConf.set_struct(config, False)
    config.optimizer.lrr = 0.1
    with pytest.raises(ConfigError, match=r"optimizer\.lrr is not a parameter .* did you mean lr\?"):
        validate(config)
    config = compose_job().config
    OmegaConf.set_struct(config, False)
    config.optimzer = {"lr": 0.1}
    with pytest.raises(ConfigError, match=r"optimzer is not a key .* did you mean optimizer\?"):
        validate(config)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("size.d_model=130", "size.d_model=130 is not divisible by size.heads=4; size.d_model=128 or 132 would work."),
    ],
)
def test_bad_dimensions_are_refused_before_data(override: str, sentence: str, compose_job: ComposeJob) -> None:
    with pytest.raises(XformerError) as caught:
        Plan.of(compose_job(override).config)
    assert str(caught.value) == sentence


def test_the_task_chooses_defaults_and_the_command_line_wins(compose_job: ComposeJob) -> None:
    chosen = compose_job("task=language_modeling").choices
    assert (chosen["architecture"], chosen["data"]) == ("decoder", "text")
    chosen = compose_job("task=language_modeling", "architecture=encoder", "data=listops").choices
    assert (chosen["architecture"], chosen["data"]) == ("encoder", "listops")


NODES = [
    pytest.param(node, id=f"{path.parent.name}/{path.stem}/{name}")
    for group in ("callbacks", "logger")
    for path in sorted((CONF / group).glob("*.yaml"))
    for name, node in OmegaConf.to_container(OmegaConf.load(path)).items()
    if name != "defaults"
]


@pytest.mark.parametrize("node", NODES)
def test_the_keys_are_the_constructors_keyword_parameters(node: dict[str, Any]) -> None:
    target = get_method(node["_target_"]) if node.get("_partial_") else _resolve(node["_target_"])
    keys = {key for key in node if not key.startswith("_")}
    if node["_target_"].startswith("xformer."):
        assert keys == set(_parameters(target))
    else:
        assert keys <= set(_parameters(target))


def _resolve(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(__import__(module, fromlist=[name]), name)
