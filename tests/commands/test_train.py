"""`xformer train`: what is typed is run, in this process and in those that a strategy starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SMALL, SMALL_LISTOPS, Command
from xformer.runs.summary import read_summary

TYPED = [*SMALL, *SMALL_LISTOPS, "trainer.max_steps=2", "trainer.val_check_interval=2"]


def test_what_is_typed_is_run_where_it_says(xformer: Command, cache: Path, tmp_path: Path) -> None:
    code, shown, _ = xformer("train", *TYPED, f"cache={cache}", "attention=local", f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 0
    summary = read_summary(tmp_path / "run")
    assert summary.status == "finished"
    assert summary.choices["attention"] == "local"
    assert "Results" in shown


@pytest.mark.slow
@pytest.mark.parametrize("started", ["script", "module"])
def test_a_strategy_starts_its_other_processes_with_the_same_command(started: str, cache: Path, tmp_path: Path) -> None:
    script = tmp_path / "bin" / "xformer"
    script.parent.mkdir()
    script.write_text("import sys\nfrom xformer.cli import main\nsys.exit(main())\n")
    begun = ["-m", "xformer.cli"] if started == "module" else ["bin/xformer"]
    typed = [*TYPED, "trainer.strategy=ddp", "trainer.devices=2", f"cache={cache}"]
    done = subprocess.run(
        [sys.executable, *begun, "train", *typed, "hydra.run.dir=run"],
        cwd=tmp_path, capture_output=True, text=True, timeout=500,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = read_summary(tmp_path / "run")
    assert summary.status == "finished"
    assert "2 x " in done.stdout
