"""`xformer compare`: what it prints it can write, each file is read once, and nothing heavy is loaded to read it."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Command
from tests.studies.conftest import MakeRun
from xformer import cli
from xformer.core.program import train_command
from xformer.studies.output_formats import FORMATS

RUNS = 40


@pytest.fixture
def many(make_run: MakeRun, tmp_path: Path) -> Path:
    """Four attentions under ten seeds."""
    for seed in range(RUNS // 4):
        for shift, name in enumerate(("full", "local", "sparse", "performer")):
            make_run(0.5 + 0.01 * shift + 0.001 * seed, seed=seed, attention=name)
    return tmp_path / "sweep"


@pytest.mark.parametrize("command", [["compare"], ["report", "--figures", "figures"]])
def test_every_file_of_a_run_is_read_once(
    command: list[str], many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: Counter[Path] = Counter()
    own = Path.open

    def consecutive(path: Path, *words: Any, **options: Any) -> Any:
        opened[path.resolve()] += 1
        return own(path, *words, **options)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["xformer", *command, str(many)])
    monkeypatch.setattr(Path, "open", consecutive)
    for name in ("HYDRA_FULL_ERROR", "XFORMER_WRAPPED"):
        monkeypatch.setenv(name, "")
    cli.main()
    of_runs = Counter({path: count for path, count in opened.items() if many in path.parents})
    assert set(of_runs.values()) == {1}
    needed = {"summary.json", "config.yaml"} | ({"metrics.csv"} if command[0] == "report" else set())
    assert Counter(path.name for path in of_runs) == dict.fromkeys(needed, RUNS)


@pytest.mark.parametrize("command", ["compare", "report"])
def test_neither_torch_nor_lightning_is_loaded(command: str, many: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from xformer.cli import main; main(); "
        "print('loaded', [name for name in ('torch', 'lightning', 'wandb', 'datasets') if name in sys.modules])"
    )
    words = [sys.executable, "-c", code, command, str(many)]
    shown = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert shown.stdout.splitlines()[-1] == "loaded []"


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_printed_can_be_written_into_a_new_directory(
    kind: str, sweep: Path, xformer: Command, tmp_path: Path
) -> None:
    code, shown, notes = xformer("compare", sweep, "--format", kind)
    assert (code, notes) == (0, "")
    assert "linformer" in shown
    file = tmp_path / "new" / "place" / "table"
    assert xformer("compare", sweep, "--format", kind, "-o", file) == (0, "", "")
    assert file.read_text(encoding="utf-8") == shown


def test_metric_and_baseline_are_those_asked_for(sweep: Path, xformer: Command) -> None:
    words = ["compare", sweep, "--format", "markdown"]
    assert "test/loss" in xformer(*words, "--metric", "test/loss")[1]
    usual, other = xformer(*words)[1], xformer(*words, "--baseline", "attention=local")[1]
    assert usual == xformer(*words, "--baseline", "attention=full")[1] != other


def test_without_runs_and_at_a_place_that_cannot_be_written_there_is_a_sentence(
    sweep: Path, xformer: Command, tmp_path: Path
) -> None:
    code, _, told = xformer("compare")
    assert (code, "No runs are named" in told) == (1, True)
    (tmp_path / "file").write_text("")
    code, _, told = xformer("compare", sweep, "-o", tmp_path / "file" / "table")
    assert (code, "cannot be written" in told) == (1, True)


def test_margin_intervals_and_seeds_are_those_asked_for(sweep: Path, xformer: Command) -> None:
    words = ["compare", sweep, "--format", "markdown"]
    usual = xformer(*words)[1]
    assert "equivalent within 0.1 to attention=full" in xformer(*words, "--margin", "0.1")[1]
    assert "a 95 % interval, not corrected" in xformer(*words, "--intervals", "plain")[1] != usual
    assert "hold at once in 95 of 100" in xformer(*words, "--intervals", "simultaneous")[1]
    assert "2 seeds" in xformer(*words, "--seeds", "0,2")[1]
    code, _, told = xformer("compare", sweep, "--seeds", "7")
    assert (code, "--seeds 7: no run has one of these seeds" in told) == (1, True)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--margin", "0"], "0 is not a margin; use a number above 0"),
        (["--margin", "few"], "few is not a margin; use a number above 0"),
        (["--add-seeds", "0"], "0 is not a number of seeds; use 1 or more"),
        (["--add-seeds"], "--add-seeds needs a study"),
    ],
)
def test_a_number_that_is_none_is_a_sentence(words: list[str], reason: str, sweep: Path, xformer: Command) -> None:
    code, _, told = xformer("compare", sweep, *words)
    assert code != 0
    assert reason in " ".join(told.split())


def test_seeds_are_added_to_a_study_by_a_command(xformer: Command) -> None:
    code, shown, _ = xformer("compare", "listops_attentions", "--add-seeds", "3")
    command, rate, *_ = shown.splitlines()
    assert (code, command) == (0, f"{train_command()} -m experiment=listops_attentions seed=3,4,5")
    assert "equal settings are called different in" in rate


def test_a_report_of_several_experiments_is_refused(sweep: Path, make_run: MakeRun, xformer: Command) -> None:
    make_run(0.5, seed=0, choices={"attention": "full", "data": "digits"})
    code, _, told = xformer("report", sweep, "-o", sweep / "report.html")
    assert (code, "A report needs runs of one experiment" in told) == (1, True)
    code, shown, _ = xformer("compare", sweep)
    assert code == 0
    assert shown.index("data=listops") < shown.index("data=digits")
