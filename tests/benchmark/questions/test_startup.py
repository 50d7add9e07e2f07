"""Commands are timed from start to end, and one that fails is no measurement."""

import sys
from pathlib import Path

import pytest

from xformer.benchmark.questions import startup
from xformer.benchmark.settings import settings
from xformer.benchmark.timing import REPEATED
from xformer.errors import RunError


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_every_command_is_timed_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = python("import time; time.sleep(0.5)")
    monkeypatch.setattr(startup, "COMMANDS", {startup.BASELINE: python("pass"), "slow": slow})
    results = startup.measure(settings("startup", ["rounds=1"], quick=False), peers=False)
    results.print()
    assert all(path.stat().st_size for path in results.save(tmp_path))
    seconds = {row["what"]: row["seconds"] for row in results.rows}
    assert set(seconds) == {startup.BASELINE, "slow", f"{REPEATED}: {startup.BASELINE}"}
    assert seconds["slow"] > 0.5


def test_a_command_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "COMMANDS", {startup.BASELINE: python("raise SystemExit('broken')")})
    with pytest.raises(RunError, match="broken"):
        startup.measure(settings("startup", ["rounds=1"], quick=False), peers=False)


@pytest.mark.slow
def test_every_real_command_runs() -> None:
    rows = startup.measure(settings("startup", ["rounds=1"], quick=False), peers=False).rows
    assert len(rows) == len(startup.COMMANDS) + 1
