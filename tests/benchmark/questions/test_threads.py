"""Runs are real processes, whose waiting the environment decides; here they are small."""

from pathlib import Path

import pytest

from tests.conftest import SMALL, SMALL_LISTOPS
from xformer.benchmark.questions import threads
from xformer.benchmark.settings import settings
from xformer.errors import RunError
from xformer.runs.summary import Summary


def test_each_way_has_its_turns_quiet_and_beside_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def train(overrides: list[str], way: threads.ThreadSetting, directory: Path) -> Summary:
        asked.append((way.threads, directory.name))
        summary = Summary("finished", hardware={"torch_threads": 1})
        summary.tokens_per_second = {"quiet": 1000.0, "busy": 800.0}.get(directory.name)
        return summary

    monkeypatch.setattr(threads, "timed_run", train)
    results = threads.measure(settings("threads", ["rounds=3", "runs=['','size=tiny,seed=1']"]), peers=False)
    results.print()
    assert all(path.stat().st_size for path in results.save(tmp_path))
    assert len(results.rows) == 2 * len(threads.thread_settings())
    assert {row["ratio"] for row in results.rows} == {0.8}
    assert {row["what"] for row in results.rows} == {*threads.thread_settings()}
    assert len(asked) == 2 * (1 + 3 * 2 * len(threads.thread_settings()))
    assert [name for _, name in asked[1:5]] == ["quiet", "busy"] * 2


def test_a_run_that_is_too_short_or_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "timed_run", lambda *_: Summary("finished"))
    with pytest.raises(RunError, match="steps: a run was too short"):
        threads.measure(settings("threads", ["rounds=1", "runs=['']"]), peers=False)


@pytest.mark.slow
def test_a_run_computes_with_what_it_is_given(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # which is not the run's
    typed = [*SMALL, *SMALL_LISTOPS, "callbacks.throughput.warmup=1", f"cache={cache}"]
    with threads.busy_cores(1):
        for number in ("1", "2"):
            summary = threads.timed_run(typed, threads.ThreadSetting(number, {}), tmp_path / number)
            assert summary.hardware["torch_threads"] == int(number)
            assert summary.tokens_per_second
    with pytest.raises(RunError, match="size=huge"):
        threads.timed_run(["size=huge"], threads.thread_settings()["auto"], tmp_path / "huge")
