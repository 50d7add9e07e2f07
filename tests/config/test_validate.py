"""Every yaml composes, instantiates and matches its constructor; every mistake is named before anything loads."""

import inspect
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf

from tests.conftest import ComposeJob
from xformer.config.plan import Plan
from xformer.config.validate import CONF, groups, instantiate_node, nearest, target, validate
from xformer.errors import ConfigError, XformerError

OPTIONS = [(group, option) for group, options in groups().items() for option in options]
PLAIN = [  # files that are one node; the others are mappings of nodes, or whole experiments
    (group, option) for group, option in OPTIONS if group not in {"callbacks", "logger", "experiment", "debug", "task"}
]


def load(group: str, option: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=[f"{group}={option}"])
    node = config[group]
    assert isinstance(node, DictConfig)
    return node


def test_every_group_of_the_axes_is_there() -> None:
    axes = "attention position architecture size task loss data tokenizer optimizer schedule trainer callbacks logger"
    assert set(groups()) == {*axes.split(), "match", "experiment", "debug"}


@pytest.mark.parametrize(("group", "option"), PLAIN)
def test_keys_are_exactly_the_constructors_keywords(group: str, option: str) -> None:
    node = load(group, option)
    found = target(node)
    keys = {str(key) for key in node if not str(key).startswith("_")}
    parameters = inspect.signature(found).parameters.values()
    if found.__module__.startswith("xformer."):
        assert keys == {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    else:
        assert keys <= {p.name for p in parameters}


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


def test_nearest_lists_what_is_valid() -> None:
    assert nearest("linfomer", ["full", "linformer"]) == "did you mean linformer? Valid: full, linformer."
    assert nearest("zzz", ["full"]) == "Valid: full."
    assert nearest("key7", [f"key{i}x" for i in range(30)]) == "did you mean key7x?"


def test_the_task_chooses_defaults_and_the_command_line_wins(compose_job: ComposeJob) -> None:
    chosen = compose_job("task=language_modeling").choices
    assert (chosen["architecture"], chosen["data"]) == ("decoder", "text")
    chosen = compose_job("task=language_modeling", "architecture=encoder", "data=listops").choices
    assert (chosen["architecture"], chosen["data"]) == ("encoder", "listops")


def test_the_installed_package_finds_its_configuration() -> None:
    assert (CONF / "train.yaml").is_file()
    assert Path(CONF).parent.name == "xformer"


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
    parameters = inspect.signature(target).parameters.values()
    keys = {key for key in node if not key.startswith("_")}
    if node["_target_"].startswith("xformer."):
        assert keys == {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    else:
        assert keys <= {parameter.name for parameter in parameters}


def _resolve(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(__import__(module, fromlist=[name]), name)
