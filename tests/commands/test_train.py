"""`xformer train`: what is typed is run, in this process."""

from pathlib import Path

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
