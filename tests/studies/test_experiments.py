"""Runs of several tasks or data sets are compared apart."""

import csv
import io
import json
from pathlib import Path

import pytest

from tests.studies.conftest import MakeRun
from xformer.errors import ConfigError, DataError
from xformer.runs.recorded_run import load_runs
from xformer.studies.comparison import compare
from xformer.studies.experiments import compare_experiments, experiment_label, only
from xformer.studies.output_formats import FORMATS, format_comparisons


@pytest.fixture
def mixed(make_run: MakeRun, sweep: Path) -> Path:
    """The sweep on ListOps, and two attentions on other data."""
    for seed in range(3):
        for attention, best in (("full", 0.5), ("local", 0.51)):
            choices = {"attention": attention, "position": "learned", "data": "digits", "experiment": "attentions"}
            make_run(best + 0.02 * seed, seed=seed, attention=attention, choices=choices)
    return sweep


def test_each_experiment_has_a_baseline_and_a_correction_of_its_own(mixed: Path) -> None:
    runs = load_runs([mixed])
    first, second = compare_experiments(runs)
    assert [dict(each.experiment) for each in (first, second)] == [
        {"task": "-", "data": "listops"}, {"task": "-", "data": "digits"},
    ]  # fmt: skip
    alone = compare([run for run in runs if run.summary.choices["data"] == "listops"])
    assert [(row.name, row.p, row.verdict) for row in first.rows] == [
        (row.name, row.p, row.verdict) for row in alone.rows
    ]
    assert [row.name for row in second.rows] == ["attention=full", "attention=local"]


def test_one_experiment_is_one_comparison_without_a_title(sweep: Path) -> None:
    (found,) = compare_experiments(load_runs([sweep]))
    assert not found.experiment
    for kind, make in FORMATS.items():
        assert format_comparisons(kind, [found]) == make(found)
    assert only([found], "This") is found


def test_a_baseline_across_data_asks_for_one_table(mixed: Path) -> None:
    (found,) = compare_experiments(load_runs([mixed]), baseline="data=listops")
    assert "data" in found.differ.named


def test_every_format_tells_experiments_apart(mixed: Path) -> None:
    found = compare_experiments(load_runs([mixed]))
    for kind in ("table", "markdown", "latex"):
        text = format_comparisons(kind, found)
        assert text.index(experiment_label(found[0].experiment)) < text.index(experiment_label(found[1].experiment))
    rows = list(csv.DictReader(io.StringIO(format_comparisons("csv", found))))
    assert [row["data"] for row in rows] == ["listops"] * 3 + ["digits"] * 2
    content = json.loads(format_comparisons("json", found))
    assert [each["experiment"]["data"] for each in content["experiments"]] == ["listops", "digits"]


def test_what_cannot_be_compared_is_a_warning_beside_what_can(mixed: Path, make_run: MakeRun) -> None:
    choices = {"attention": "full", "data": "broken"}
    make_run(None, seed=0, status="failed", error="No data.", choices=choices)
    found = compare_experiments(load_runs([mixed]))
    assert len(found) == 2
    (warning,) = (each for each in found[-1].warnings if "no table for" in each)
    assert "data=broken" in warning
    assert "No data." in warning


def test_nothing_to_compare_is_an_error_that_names_an_experiment(mixed: Path) -> None:
    with pytest.raises(ConfigError, match=r"None of 2 experiments.*data=listops.*--metric test/acuracy"):
        compare_experiments(load_runs([mixed]), "test/acuracy")


def test_what_is_of_one_experiment_refuses_several(mixed: Path) -> None:
    with pytest.raises(DataError, match=r"A report needs runs of one experiment.*2: .*data=listops; .*data=digits"):
        only(compare_experiments(load_runs([mixed])), "A report")
