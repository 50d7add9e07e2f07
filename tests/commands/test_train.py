"""`xformer train`: what is typed is run, in this process."""

from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from tests.conftest import SMALL, SMALL_LISTOPS, Command
from xformer.runs.summary import read_summary

TYPED = [*SMALL, *SMALL_LISTOPS, "trainer.max_steps=2", "trainer.val_check_interval=2"]


@pytest.fixture(autouse=True)
def _another_time(monkeypatch: pytest.MonkeyPatch):
    """Hydra composes once in a process unless it is told to forget."""
    monkeypatch.setenv("XFORMER_SWEEP", "")
    monkeypatch.delenv("XFORMER_SWEEP")
    yield
    GlobalHydra.instance().clear()


def test_what_is_typed_is_run_where_it_says(xformer: Command, cache: Path, tmp_path: Path) -> None:
    code, shown, _ = xformer("train", *TYPED, f"cache={cache}", "attention=local", f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 0
    summary = read_summary(tmp_path / "run")
    assert summary.status == "finished"
    assert summary.choices["attention"] == "local"
    assert "Results" in shown
