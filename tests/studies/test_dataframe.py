"""A comparison as a table of pandas: the numbers of the committed table, and the sentences beside it."""

import csv
from pathlib import Path
from statistics import mean

import pytest

import xformer
from xformer.errors import DataError
from xformer.studies.study import EXPERIMENTS


def test_the_means_are_those_of_the_committed_runs() -> None:
    frame = xformer.compare("listops_attentions")
    with (EXPERIMENTS / "listops_attentions" / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected: dict[str, list[float]] = {}
    for row in rows:
        expected.setdefault(row["config.attention"], []).append(float(row["metrics.test/accuracy"]))
    means = dict(zip(frame["attention"], frame["mean"], strict=True))
    assert means == {name: pytest.approx(mean(values)) for name, values in expected.items()}
    assert set(frame["verdict"]) == {"baseline", "worse", "no difference shown"}
    assert any("differ by" in note for note in frame.attrs["notes"])


def test_metric_baseline_and_directory_can_be_chosen() -> None:
    folder = EXPERIMENTS / "listops_attentions"
    frame = xformer.compare([folder], metric="test/loss", baseline="attention=linformer").set_index("attention")
    assert set(frame["metric"]) == {"test/loss"}
    assert frame["verdict"]["linformer"] == "baseline"


def test_what_is_no_run_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is neither a directory nor a study"):
        xformer.compare(tmp_path / "nowhere")
