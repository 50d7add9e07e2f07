"""The verdicts of a study under changed settings."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.studies.conftest import MakeRun
from xformer.config.tune import TunePlan
from xformer.errors import ConfigError, DataError
from xformer.studies.robustness import (
    AS_IS,
    as_json,
    commands,
    conditions,
    read_changes,
    verdict_rows,
    verdict_sentences,
)
from xformer.studies.study import Study

SIZES = {"size": ["tiny", "base", "large"]}


def study_in(directory: Path, **more: Any) -> Study:
    return Study("attentions", "Which?", "attention=full", None, "a minute", directory, ("attention", "seed"), **more)


def make_condition(make_run: MakeRun, value: str | None, apart: float, key: str = "size") -> None:
    """Three seeds of two attentions, linformer lower by `apart` with little noise."""
    for seed, noise in enumerate((0.00, 0.05, 0.02)):
        for attention in ("full", "linformer"):
            typed = [f"attention={attention}", f"seed={seed}", *([f"{key}={value}"] if value else [])]
            choices = {"attention": attention, "data": "listops", "size": value or "small", "experiment": "attentions"}
            lower = (apart + 0.002 * seed) * (attention == "linformer")
            make_run(0.5 + noise - lower, seed=seed, attention=attention, overrides=typed, choices=choices)


@pytest.fixture
def studied(make_run: MakeRun, tmp_path: Path) -> Path:
    """A study's runs in `own`, and those with other sizes in `sweep`; none of size=large."""
    make_condition(make_run, None, 0.1)
    (tmp_path / "sweep").rename(tmp_path / "own")
    make_condition(make_run, "tiny", 0.0005)
    make_condition(make_run, "base", -0.1)
    return tmp_path


def test_each_changed_setting_is_compared_apart(studied: Path) -> None:
    found = conditions(study_in(studied / "own"), SIZES, [studied / "sweep"])
    assert [each.name for each in found] == [AS_IS, "size=tiny", "size=base", "size=large"]
    titles, *rows = verdict_rows(found)
    assert titles == ["setting", "attention=linformer"]
    cells = [row[1] for row in rows]
    assert [cell.partition(" (")[0] for cell in cells] == ["worse", "no difference shown", "better", "no runs yet."]
    assert cells[0] == "worse (-0.1020, 3 seeds)"


def test_a_sentence_says_where_the_verdict_holds_and_that_it_flips(studied: Path) -> None:
    study = study_in(studied / "own")
    (sentence,) = verdict_sentences(conditions(study, SIZES, [studied / "sweep"]))
    assert sentence == (
        "attention=linformer: is worse than attention=full in 1 of 3 settings; no difference shown at size=tiny; "
        "better at size=base. The verdict flips."
    )
    (sentence,) = verdict_sentences(conditions(study, {"size": ["tiny"]}, [studied / "sweep"]))
    assert sentence.endswith("in 1 of 2 settings; no difference shown at size=tiny.")


def test_the_command_for_what_was_not_run_is_that_of_the_study(studied: Path) -> None:
    study = study_in(studied / "own")
    found = conditions(study, SIZES, [studied / "sweep"])
    (command,) = commands(study, SIZES, found)
    assert command == (
        "python train.py -m experiment=attentions size=large hydra.sweep.dir=outputs/robustness/attentions"
    )
    assert commands(study, {"size": ["tiny"]}, conditions(study, {"size": ["tiny"]}, [studied / "sweep"])) == []


def test_a_number_is_the_same_in_every_form(make_run: MakeRun, tmp_path: Path) -> None:
    make_condition(make_run, None, 0.1)
    (tmp_path / "sweep").rename(tmp_path / "own")
    for seed, attention in ((s, a) for s in range(2) for a in ("full", "local")):
        typed = [f"attention={attention}", f"seed={seed}", "optimizer.lr=0.001"]
        make_run(0.5, seed=seed, attention=attention, overrides=typed)
    found = conditions(study_in(tmp_path / "own"), {"optimizer.lr": ["1e-3"]}, [tmp_path / "sweep"])
    assert [each.comparison is None for each in found] == [False, False]


def test_where_no_run_has_the_value_those_that_are_there_are_named(studied: Path) -> None:
    with pytest.raises(DataError, match=r"No run has size=tinny; did you mean tiny\?"):
        conditions(study_in(studied / "own"), {"size": ["tinny"]}, [studied / "sweep"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "No setting is changed; write key=a,b"),
        (["size"], "size is not a setting and its values"),
        (["size="], "size= is not a setting and its values"),
        (["attention=full"], "attention is varied by attentions itself"),
        (["seed=3"], "seed is varied by attentions itself"),
    ],
)
def test_a_change_that_is_none_is_a_sentence(words: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_changes(study_in(tmp_path), words)
    assert told in str(caught.value)


def test_a_tuned_setting_can_be_changed(tmp_path: Path) -> None:
    plan = TunePlan({"optimizer.lr": (0.1, 0.2)}, (100,))
    study = study_in(tmp_path, tune=plan)
    assert read_changes(study, ["optimizer.lr=0.1", "optimizer.lr=0.3", "size=tiny"]) == {
        "optimizer.lr": ["0.1", "0.3"], "size": ["tiny"],
    }  # fmt: skip


def test_json_has_every_setting(studied: Path) -> None:
    found = conditions(study_in(studied / "own"), SIZES, [studied / "sweep"])
    content = json.loads(as_json(found))
    assert [each["setting"] for each in content["settings"]] == [AS_IS, "size=tiny", "size=base", "size=large"]
    assert content["settings"][3] == {"setting": "size=large", "reason": "no runs yet.", "groups": {}}
    assert content["settings"][0]["groups"]["attention=linformer"]["pairs"] == 3
    assert content["sentences"] == verdict_sentences(found)
