"""Which paths are runs, and what is not one."""

import sys
from pathlib import Path

import pytest

from tests.studies.conftest import MakeRun
from xformer import cli
from xformer.errors import DataError
from xformer.runs.recorded_run import load_runs


def test_a_pattern_takes_runs_and_nothing_else_that_lies_there(sweep: Path) -> None:
    (sweep / "multirun.yaml").write_text("hydra: {}\n")
    every = load_runs([sweep])
    assert len(every) == 9
    assert load_runs([f"{sweep}/*"]) == every
    assert load_runs([f"{sweep}/*/summary.json"]) == every
    assert load_runs([sweep / "0" / "config.yaml"]) == every[:1]
    for path in (sweep / "multirun.yaml", f"{sweep}/*.yaml", sweep / "0" / "metrics.csv"):
        with pytest.raises(DataError, match=r"contains no run|does not exist"):
            load_runs([path])


def test_a_killed_run_has_the_choices_that_it_used(sweep: Path) -> None:
    started = sweep / "0" / ".hydra" / "hydra.yaml"
    started.write_text(started.read_text().replace("attention: full", "attention: full\n      decoder_attention: full"))
    assert "decoder_attention" in started.read_text()
    (before,) = load_runs([sweep / "0"])
    (sweep / "0" / "summary.json").unlink()
    (killed,) = load_runs([sweep / "0"])
    assert (killed.settings, killed.seed) == (before.settings, before.seed)
    assert killed.summary.choices == before.summary.choices


@pytest.mark.parametrize("content", ["name: somebody else's\n", "- a list\n"])
def test_a_configuration_of_something_else_is_a_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(DataError, match=r"config\.yaml is not the configuration of a run: it has no seed\.$"):
        load_runs([tmp_path])


def _told(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["xformer", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("command", ["compare", "report"])
def test_a_file_is_written_into_a_new_directory_or_its_way_is_told(
    command: str, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = str(make_run(0.5, seed=0)), tmp_path / "new" / "deep" / "file"
    monkeypatch.setattr(sys, "argv", ["xformer", command, run, "-o", str(file)])
    cli.main()
    assert "test/accuracy" in file.read_text()
    assert "cannot be written: File exists" in _told([command, run, "-o", f"{file}/x"], monkeypatch, capsys)
    assert "cannot be written: Is a directory" in _told([command, run, "-o", str(file.parent)], monkeypatch, capsys)


def test_figures_that_cannot_be_written_are_a_sentence(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, page = make_run(0.5, seed=0), tmp_path / "page.html"
    words = ["report", str(run), "-o", str(page), "--figures", str(run / "config.yaml")]
    assert "cannot be written: File exists" in _told(words, monkeypatch, capsys)
