"""`xformer record`: a study's folder, written from its runs, and every file of it named."""

from pathlib import Path

import pytest

from tests.conftest import Command
from tests.studies.conftest import MakeRun
from xformer.studies import study

FILE = """
study: {question: 'Which attention?', expected: 1 minute, baseline: attention=full}
hydra: {sweep: {dir: RUNS}, sweeper: {params: {attention: 'full,linformer,local'}}}
"""


@pytest.fixture
def folder(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the results of a study named `attentions` go, whose runs are those of `sweep`."""
    experiments = tmp_path / "experiments"
    experiments.mkdir()
    (experiments / "attentions.yaml").write_text(FILE.replace("RUNS", str(sweep)))
    monkeypatch.setattr(study, "EXPERIMENTS", experiments)
    return experiments / "attentions"


def test_the_folder_is_written_and_each_file_named(folder: Path, xformer: Command) -> None:
    code, shown, _ = xformer("record", "attentions")
    assert code == 0
    files = [Path(line) for line in shown.splitlines()]
    assert {*files} == {file for file in folder.rglob("*") if file.is_file()}
    assert "attention=linformer: worse than attention=full" in (folder / "README.md").read_text()


def test_runs_can_lie_elsewhere_and_must_be_of_the_study(folder: Path, xformer: Command, make_run: MakeRun) -> None:
    alone = make_run(0.5, seed=7, choices={"attention": "full", "experiment": "another"})
    code, shown, told = xformer("record", "attentions", "--runs", alone)
    assert (code, shown) == (1, "")
    assert "is not of attentions: it has experiment=another" in " ".join(told.split())
    assert not folder.exists()


def test_what_is_no_study_is_a_sentence(folder: Path, xformer: Command) -> None:
    code, _, told = xformer("record", "atentions")
    assert code == 1
    assert "atentions is not a study; did you mean attentions?" in told
