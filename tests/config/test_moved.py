"""Old keys: read where they were stored, named where they are typed, and not mistaken for keys of today."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.conftest import ComposeJob
from xformer.config import groups as groups_module
from xformer.config.compose import explain_error
from xformer.config.groups import CONF, groups
from xformer.config.identity import flatten, settings_of_config, short_name
from xformer.config.moved import MOVED, first_settings, new_config, new_key, new_overrides, new_settings
from xformer.config.options import with_current_targets
from xformer.config.redact import resolved_config
from xformer.config.validate import validate
from xformer.errors import ConfigError
from xformer.runs.summary import Summary, summary_from_json

DATA = [("data", option) for option in groups()["data"]]
TASKS = [("task", option) for option in ("image_classification", "masked_language_modeling")]


def of_before(config: dict[str, Any], *, images: bool) -> dict[str, Any]:
    """A configuration as a version before the blocks left it."""
    old = {new: old for old, new in MOVED.items()}
    if images:  # which called it by the other name
        old["data.split.val_fraction"] = "data.val_fraction"
    found = {key: dict(node) if isinstance(node, dict) else node for key, node in config.items()}
    for new, key in old.items():
        (group, block, name), first = new.split("."), key.split(".")[1]
        if name in found[group].get(block, {}):
            found[group][first] = found[group][block][name]
    for new in old:
        group, block, _ = new.split(".")
        found[group].pop(block, None)
    return found


@pytest.mark.parametrize(("group", "option"), [*DATA, *TASKS])
def test_a_stored_configuration_of_before_is_that_of_now(group: str, option: str, compose_job: ComposeJob) -> None:
    job = compose_job(f"{group}={option}")
    now = {**resolved_config(job.config), "logger": {}}
    then = of_before(now, images="Images" in str(now["data"]) or "Pixels" in str(now["data"]))
    assert flatten(then) != flatten(now)
    assert "loader" not in then["data"]
    summary = Summary("finished", choices=job.choices, ignored_keys=[])
    assert with_current_targets(then, summary) == now
    assert settings_of_config(new_config(then, job.choices), job.choices) == settings_of_config(now, job.choices)
    settings = new_settings(flatten(then), job.choices)
    settings.pop("task.masking.seed", None)  # which follows the seed
    assert settings == flatten(now)


def test_every_new_key_is_one_of_an_option_and_no_old_one_is() -> None:
    nodes = [(group, OmegaConf.load(file)) for group in ("data", "task") for file in (CONF / group).glob("*.yaml")]
    there = {f"{group}.{key}" for group, node in nodes for key in _below(node.get(group, node))}
    assert set(MOVED.values()) <= there
    assert not {key for key in MOVED if any(key == name for name in there)}


def _below(node: Any, path: str = "") -> list[str]:
    found = []
    for key in node:
        found.append(f"{path}{key}")
        if OmegaConf.is_dict(inner := node._get_node(key)):
            found += _below(inner, f"{path}{key}.")
    return found


def test_overrides_keep_their_signs_and_values() -> None:
    typed = ["data=text", "+data.batch_size=8", "~data.files", "data.files.train=a=b", "optimizer.lr=1", "seed=3"]
    assert new_overrides(typed, {"data": "text"}) == [
        "data=text", "+data.loader.batch_size=8", "~data.source.files", "data.source.files.train=a=b",
        "optimizer.lr=1", "seed=3",
    ]  # fmt: skip
    summary = summary_from_json({"status": "finished", "overrides": typed, "choices": {"data": "text"}})
    assert summary.overrides[1] == "+data.loader.batch_size=8"


def test_what_an_option_of_today_has_is_no_old_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset that somebody adds may have a column of its own."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("_target_: xformer.mine.Mine\ncolumn: text\n")
    monkeypatch.setattr(groups_module, "conf_folders", lambda: [CONF, tmp_path])
    assert new_key("data.column", {"data": "mine"}) == "data.column"
    assert new_key("data.batch_size", {"data": "mine"}) == "data.loader.batch_size"
    assert new_config({"data": {"column": "text"}}, {"data": "mine"}) == {"data": {"column": "text"}}
    assert new_key("data.column", {"data": "gone"}) == "data.source.column"


def test_a_configuration_in_a_word_is_what_it_was() -> None:
    """The word stands in summaries of runs that started from another: `init_from`."""
    then = {"attention": "full", "data.batch_size": 8, "data.validation_fraction": 0.1, "task.mixup.alpha": 0.5}
    now = {
        "attention": "full", "data.loader.batch_size": 8, "data.split.val_fraction": 0.1,
        "task.augmentation.mixup.alpha": 0.5,
    }  # fmt: skip
    assert new_settings(then, {}) == now
    assert first_settings(now) == then
    assert short_name(now) == short_name(then)


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("+data.batch_size=8", "data.batch_size is not a parameter of .*ListOps; it is data.loader.batch_size now."),
        ("+data.loader.batch=8", "data.loader.batch is not a parameter of LoaderConfig; did you mean batch_size?"),
        ("data.loader.batch_size=0", "data.loader.batch_size=0 must be at least 1."),
        ("data.loader=3", "data.loader=3 must be a mapping with the keys batch_size, num_workers."),
        ("~data.loader.batch_size", "data.loader.batch_size is missing; LoaderConfig requires it."),
        ("~data.loader", "data.loader is missing; .*ListOps requires it."),
    ],
)
def test_a_bad_key_or_value_of_a_block_is_named(typed: str, sentence: str, compose_job: ComposeJob) -> None:
    with pytest.raises(ConfigError, match=sentence):
        validate(compose_job(typed).config)


@pytest.mark.parametrize("old", ["data.batch_size", "data.validation_fraction", "task.mixup"])
def test_whoever_types_an_old_key_is_told_the_new_one(old: str, compose_job: ComposeJob) -> None:
    with pytest.raises(Exception, match="Could not override") as caught:
        compose_job(f"{old}=1")
    assert explain_error(caught.value) == f"{old} is not a key of the configuration; it is {MOVED[old]} now."
