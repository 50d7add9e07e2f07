"""Groups by configuration without the seed, and the keys that tell them apart."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from tests.studies.conftest import MakeRun
from xformer.config.identity import override_value, settings_of_config
from xformer.config.ignored_keys import find_ignored_keys
from xformer.config.redact import resolved_config
from xformer.config.validate import CONF
from xformer.runs.recorded_run import RecordedRun, load_runs
from xformer.runs.summary import Summary
from xformer.studies.comparison import compare
from xformer.studies.grouping import differences, group_name, group_runs


def runs(*settings: dict, choices: tuple[str, ...] = (), typed: tuple[str, ...] = ()) -> list[RecordedRun]:
    summaries = [Summary("finished", choices={key: str(s[key]) for key in choices}, seed=0) for s in settings]
    for summary in summaries:
        summary.overrides = [f"{key}=1" for key in typed]
    return [RecordedRun(str(i), s, summary) for i, (s, summary) in enumerate(zip(settings, summaries, strict=True))]


def named(*settings: dict, **how: tuple[str, ...]) -> tuple[str, ...]:
    return differences(group_runs(runs(*settings, **how))).named


def test_runs_that_differ_in_the_seed_and_in_where_they_lie_are_one_group(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(3):
        make_run(0.5, seed=seed, config={"cache": f"elsewhere/{seed}", "resume": bool(seed)})
    groups = group_runs(load_runs([tmp_path / "sweep"]))
    assert [len(group.runs) for group in groups] == [3]


def test_a_choice_stands_for_all_that_it_brings(sweep: Path) -> None:
    groups = group_runs(load_runs([sweep]))
    found = differences(groups)
    assert (found.named, found.also) == (("attention",), ())
    assert {group_name(group, found.named) for group in groups} == {
        f"attention={a}" for a in ("full", "linformer", "local")
    }


def test_the_smallest_set_is_named() -> None:
    assert named({"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 2}) == ("a", "b")
    assert named({"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 2, "c": 2}, {"a": 2, "b": 2, "c": 3}) == ("c",)
    assert named({"a": 1}, {"a": 1, "rank": 4}) == ("rank",)


def test_choices_are_preferred_then_what_was_typed() -> None:
    same = ({"x": 1, "y": 1, "z": 1}, {"x": 2, "y": 2, "z": 2})
    assert named(*same) == ("x",)
    assert named(*same, typed=("y",)) == ("y",)
    assert named(*same, typed=("y",), choices=("z",)) == ("z",)


def test_what_is_not_held_equal_is_said() -> None:
    found = differences(group_runs(runs(
        {"attention": "full", "attention.x": 1, "lr": 1, "data": "a", "data.n": 1},
        {"attention": "local", "attention.x": 2, "lr": 2, "data": "b", "data.n": 2}, choices=("attention", "data"),
    )))  # fmt: skip
    assert (found.named, found.also) == (("attention",), ("lr", "data"))


def test_numbers_that_agree_to_six_digits_are_told_apart() -> None:
    key = "optimizer.lr"
    groups = group_runs(runs({key: 0.12345678}, {key: 0.12345679}, {key: 0.5}))
    assert [group_name(group, differences(groups).named) for group in groups] == [
        f"{key}=0.12345678", f"{key}=0.12345679", f"{key}=0.5",
    ]  # fmt: skip
    assert override_value(1e-3) == "0.001"
    assert override_value(1.0) == override_value(1)  # as they are equal


def test_groups_that_read_alike_end_the_search() -> None:
    assert named({"a": 1}, {"a": "1"}) == ()
    assert named({"a": 1, "b": 1}, {"a": "1", "b": 1}, {"a": 1, "b": 2}) == ("b",)


def test_a_value_that_is_null_is_not_one_that_is_missing() -> None:
    assert len(group_runs(runs({"a": None}, {}))) == 2


def test_a_swap_started_from_each_seeds_own_run_is_one_group(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(3):
        base = make_run(0.8 + 0.01 * seed, seed=seed)
        swap = {"config": {"init_from": str(base)}, "warm_start": {"run": str(base), "source": "full-1"}}
        make_run(0.6 + 0.02 * seed, seed=seed, attention="performer", **swap)
    full, swapped = compare(load_runs([tmp_path / "sweep"])).rows
    assert full.difference is None
    assert swapped.difference is not None
    assert (swapped.name, swapped.difference.pairs) == ("attention=performer", 3)
    for source in ("full-2", None):  # from another configuration, and by a version that did not say which
        make_run(0.5, seed=0, attention="performer", config={"init_from": "x"}, warm_start={"source": source})
    assert len(group_runs(load_runs([tmp_path / "sweep"]))) == 4


def test_what_only_watches_makes_no_other_configuration(make_run: MakeRun, tmp_path: Path) -> None:
    probes, rate = {"gradient_norm": {"examples": 4}}, {"learning_rate": {"logging_interval": "step"}}
    several = {"attention": "full"}  # Hydra tells no choice of several options
    for choices, nodes in [({"callbacks": "default", **several}, {}), (several, probes), (several, rate)]:
        make_run(0.5, seed=0, choices=choices, config={"callbacks": nodes})
    assert len(group_runs(load_runs([tmp_path / "sweep"]))) == 1
    changing = {"curriculum": {"_target_": "xformer.callbacks.curriculum.Curriculum", "steps": 1000}}
    make_run(0.5, seed=0, choices=several, config={"callbacks": changing | probes})
    found = differences(group_runs(load_runs([tmp_path / "sweep"])))
    assert (found.named, found.also) == (("callbacks.curriculum",), ())  # which stands for what it brings
    assert [group_name(group, found.named) for group in group_runs(load_runs([tmp_path / "sweep"]))] == [
        "callbacks.curriculum=-", "callbacks.curriculum=curriculum",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "option", [file.stem for file in (CONF / "callbacks").glob("*.yaml") if file.stem != "default"]
)
def test_an_option_of_callbacks_either_watches_or_decides(option: str) -> None:
    """By what its class declares now, as by the names that runs had when no class declared anything."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        both = [compose("train", overrides=[f"callbacks={o}"]) for o in ("default", f"[default,{option}]")]
    plain, added = (resolved_config(config) for config in both)
    idle = [find_ignored_keys(config["callbacks"]) for config in (plain, added)]
    for declared in (idle, (None, None)):
        same = settings_of_config(plain, {"callbacks": "default"}, {}, declared[0]) == settings_of_config(
            added, {}, {}, declared[1]
        )
        assert same == (option not in {"curriculum", "early_stopping"})
    assert settings_of_config(added, {}, {}, idle[1]) == settings_of_config(added, {})


def test_a_callback_that_says_nothing_decides(make_run: MakeRun, tmp_path: Path) -> None:
    mine = {"mine": {"_target_": "xformer.callbacks.mine.Mine"}}
    make_run(0.5, seed=0, config={"callbacks": {}})
    make_run(0.5, seed=0, config={"callbacks": mine})
    make_run(0.5, seed=0, config={"callbacks": mine}, ignored_keys=["callbacks.mine"])
    groups = group_runs(load_runs([tmp_path / "sweep"]))
    assert [len(group.runs) for group in groups] == [2, 1]
    assert groups[1].get("callbacks.mine") == "xformer.callbacks.mine.Mine"  # which is no option, so typed
