"""A command that `reproduce --wandb` starts: what it trains is in tests/training/test_rerun.py."""

from pathlib import Path

from tests.conftest import Command


def test_a_directory_that_asks_for_nothing_is_refused(xformer: Command, tmp_path: Path) -> None:
    code, _, told = xformer("rerun", str(tmp_path))
    assert code == 1
    assert "rerun.json does not exist" in " ".join(told.split())
    assert not any(tmp_path.iterdir())
