"""A committed table stands for the run directories it was written from."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.studies.conftest import MakeRun
from xformer.errors import DataError
from xformer.runs.recorded_run import load_runs
from xformer.studies.committed_runs import read_table, write_table
from xformer.studies.comparison import compare
from xformer.studies.output_formats import FORMATS


def test_a_table_gives_the_comparison_that_its_runs_give(sweep: Path, make_run: MakeRun, tmp_path: Path) -> None:
    make_run(0.7, seed=7, attention="local", config={"data": {"pairs": 4, "name": "1"}}, versions={"torch": "3"})
    make_run(None, seed=3, attention="local", status="failed", error='It said "no", twice.')
    refused = make_run(None, seed=0, attention="performer", status="skipped", error="It cannot.")
    (refused / "config.yaml").unlink()
    runs = load_runs([sweep])
    write_table(tmp_path / "study", runs)
    back = read_table(tmp_path / "study")
    for before, after in zip(runs, back, strict=True):
        assert after.settings == before.settings
        assert {k: v for k, v in after.summary.metrics.items()} == {
            k: v for k, v in before.summary.metrics.items() if v is not None
        }
        settings = {key: value for key, value in before.summary.choices.items() if key != "experiment"}  # it is typed
        assert after.summary.choices == settings
        for field in ("status", "error", "seed", "overrides", "git", "versions", "hardware", "floors"):
            assert getattr(after.summary, field) == getattr(before.summary, field), field
    assert FORMATS["csv"](compare(back)) == FORMATS["csv"](compare(runs))
    assert list(compare(back).left_out.values()) == list(compare(runs).left_out.values())


def test_a_table_of_a_version_that_kept_more_says_the_same(sweep: Path, tmp_path: Path) -> None:
    runs = load_runs([sweep])
    write_table(tmp_path / "study", [replace(run, settings={**run.settings, "callbacks": "default"}) for run in runs])
    assert [run.settings for run in read_table(tmp_path / "study")] == [run.settings for run in runs]


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("shared.yml", ""),
        ("shared.yml", "settings: 'a\n"),
        ("shared.yml", "settings: [1\n"),
        ("shared.yml", "settings: ${nothing}\n"),
        ("runs.csv", "run,status\n1,finished\n"),
        ("runs.csv", "run,status\n1," + "x" * 200_000),
    ],
    ids=lambda value: value[:12],
)
def test_a_damaged_table_is_a_sentence(file: str, damage: str, sweep: Path, tmp_path: Path) -> None:
    write_table(tmp_path / "study", load_runs([sweep]))
    (tmp_path / "study" / file).write_text(damage)
    with pytest.raises(DataError, match=r"does not hold a table of runs.*\.$"):
        read_table(tmp_path / "study")
