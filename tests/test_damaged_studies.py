"""Run directories and tables damaged at random: whatever is in them, a command works or ends in one sentence."""

from pathlib import Path
from typing import Any

import pytest

from tests.damage import damaged, sentence_of
from tests.studies.conftest import MakeRun
from xformer.runs.recorded_run import load_runs
from xformer.studies import record as recording
from xformer.studies.committed_runs import read_table, write_table
from xformer.studies.comparison import Comparison, compare
from xformer.studies.figures import figures
from xformer.studies.output_formats import FORMATS
from xformer.studies.report_page import report_page
from xformer.studies.study import Study

MANY = [100, pytest.param(1000, marks=pytest.mark.slow)]
SOME = [15, pytest.param(100, marks=pytest.mark.slow)]


@pytest.fixture
def runs(make_run: MakeRun, tmp_path: Path) -> Path:
    """Two attentions under two seeds, and a run that was killed."""
    for seed in range(2):
        make_run(0.80 + 0.01 * seed, seed=seed)
        make_run(0.60 + 0.02 * seed, seed=seed, attention="linformer")
    (make_run(None, seed=3) / "summary.json").unlink()
    return tmp_path / "sweep"


def files_of(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def in_all_formats(found: Comparison) -> None:
    for write in FORMATS.values():
        write(found)
    for row in found.rows:
        for run in row.group.runs:
            run.curve("val/accuracy")


@pytest.mark.parametrize("cases", MANY)
def test_damaged_run_directories_are_compared_or_are_a_sentence(cases: int, runs: Path) -> None:
    said = []
    for number in range(cases):
        with damaged(files_of(runs), number):
            said.append(sentence_of(lambda: in_all_formats(compare(load_runs([runs])))))
    assert 0.2 < sum(sentence is not None for sentence in said) / cases < 0.9
    assert all(str(runs) in sentence or "monitor different metrics" in sentence for sentence in said if sentence)


@pytest.mark.parametrize("cases", SOME)
def test_damaged_run_directories_are_reported_or_are_a_sentence(cases: int, runs: Path) -> None:
    def report() -> None:
        found = compare(load_runs([runs]))
        report_page(found, "x", figures(found))

    read = [file for file in files_of(runs) if file.parent.name != ".hydra"]
    said = []
    for number in range(cases):
        with damaged(read, number):
            said.append(sentence_of(report))
    assert None in said


@pytest.mark.parametrize("cases", SOME)
def test_damaged_run_directories_are_recorded_or_nothing_is_written(
    cases: int, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "write_figures", lambda *_: [])  # pictures, which take a second
    study = Study("attentions", "Which?", "attention=full", None, "1 minute", runs, ("attention",))
    folder = tmp_path / "attentions"
    recording.record_study(study, load_runs([runs]), folder)
    for number in range(cases):
        before = {file: file.read_bytes() for file in files_of(folder)}
        with damaged([*files_of(runs), folder / "README.md"], number) as file:
            said = sentence_of(lambda: recording.record_study(study, load_runs([runs]), folder))
            assert said is None or all(path.read_bytes() == text for path, text in before.items() if path != file)


@pytest.mark.parametrize("cases", MANY)
def test_a_damaged_table_is_compared_or_is_a_sentence(cases: int, runs: Path, tmp_path: Path) -> None:
    write_table(tmp_path / "study", load_runs([runs]))
    said = []
    for number in range(cases):
        with damaged(files_of(tmp_path / "study"), number):
            said.append(sentence_of(lambda: in_all_formats(compare(read_table(tmp_path / "study")))))
    assert 0.2 < sum(sentence is not None for sentence in said) / cases < 0.95


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("metrics.test/accuracy", "good", "metrics.test/accuracy is 'good': input should be a valid number"),
        ("metrics", [1], "metrics is '[1]': input should be"),
        ("seed", "0", "seed is '0': input should be a valid integer"),
        ("status", "done", "status is 'done': input should be 'running'"),
        ("monitor.mode", "up", "monitor.mode is 'up': input should be 'min' or 'max'"),
        ("overrides", {"a": 1}, "overrides is"),
        ("parameters", 1.5, "parameters is '1.5'"),
        ("parameters", 10**30, "parameters is"),
        ("wall_seconds", True, "wall_seconds is 'True'"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_file(place: str, value: Any, said: str, runs: Path) -> None:
    import json

    file = runs / "0" / "summary.json"
    content = json.loads(file.read_text())
    *outer, last = place.split(".")
    inner = content
    for key in outer:
        inner = inner[key]
    inner[last] = value
    file.write_text(json.dumps(content))
    sentence = sentence_of(lambda: load_runs([runs])) or ""
    assert f"{file} is not a run's summary: {said}" in sentence


def test_a_binary_table_of_metrics_is_named(runs: Path) -> None:
    file = runs / "0" / "metrics.csv"
    file.write_bytes(b"\x80\x81\0" * 50)

    def report() -> None:
        found = compare(load_runs([runs]))
        report_page(found, "x", figures(found))

    assert (sentence_of(report) or "").startswith(f"{file} is not a table of metrics: ")
