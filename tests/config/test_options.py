"""Where the class of an option lives now, at every key of a configuration."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.conftest import ComposeJob
from xformer.config.identity import targets
from xformer.config.options import replaced_targets, target_at, target_overrides, with_current_targets
from xformer.config.redact import resolved_config
from xformer.config.validate import groups
from xformer.runs.summary import Summary

ASKED = {group: options for group, options in groups().items() if group not in ("experiment", "debug", "hydra")}
"""Every option of every group is in one of as many configurations as the largest group has options."""


@pytest.mark.parametrize("number", range(max(map(len, ASKED.values()))))
def test_what_hydra_composes_of_options_alone_has_the_class_of_the_option_everywhere(
    number: int, compose_job: ComposeJob
) -> None:
    chosen = {group: options[number % len(options)] for group, options in ASKED.items()}
    words = [f"{group}={option}" for group, option in chosen.items() if group != "callbacks"]
    path = ["tokenizer.path=x"] if chosen["tokenizer"] == "file" else []
    job = compose_job(*words, *path, f"callbacks=[default,{chosen['callbacks']}]")
    config = {**resolved_config(job.config), "logger": None}
    assert len(targets(config)) > 15
    assert replaced_targets(config, job.choices) == {}


@pytest.mark.parametrize("options", [["attention=linformer"], ["task=image_classification"], ["match=flops"]])
def test_a_stored_configuration_has_the_classes_of_now(options: list[str], compose_job: ComposeJob) -> None:
    job = compose_job(*options, "callbacks=[default,probes]")
    now = {**resolved_config(job.config), "logger": {}}
    then = _with(now, lambda name: name.replace("xformer.", "xformer.then."))
    assert then != now
    for declared in (None, []):  # of before, and of a run that wrote down what is by hand
        summary = Summary("finished", choices=job.choices, ignored_keys=declared)
        assert with_current_targets(then, summary) == now
        assert target_overrides(now, summary) == {}
    recorded = Summary("finished", choices=job.choices, ignored_keys=[], target_overrides={"task": "xformer.then.Mine"})
    assert with_current_targets(then, recorded)["task"]["_target_"] == then["task"]["_target_"]


def _with(node: Any, change: Any) -> Any:
    if not isinstance(node, dict):
        return node
    return {key: change(value) if key == "_target_" else _with(value, change) for key, value in node.items()}


def test_what_is_no_option_is_by_hand(compose_job: ComposeJob) -> None:
    job = compose_job("attention=full")
    OmegaConf.set_struct(job.config, False)
    local = target_at("attention", {"attention": "local"})
    job.config.attention = {"_target_": local, "_partial_": True, "window": 4}
    job.config.callbacks.mine = {"_target_": "xformer.mine.Mine"}
    found = replaced_targets({**resolved_config(job.config), "logger": None}, job.choices)
    assert found == {"attention": local, "architecture.attention": local, "callbacks.mine": "xformer.mine.Mine"}


def test_a_key_without_a_part_has_none() -> None:
    assert target_at("attention", {}) is None
    assert target_at("attention", {"attention": "gone"}) is None
    assert target_at("architecture.attention", {"architecture": "encoder"}) is None
    assert target_at("trainer.plugins", {"trainer": "default"}) is None
