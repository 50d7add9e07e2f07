"""Turns are taken, and a ratio is that of its own turn."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from xformer.benchmark import timing
from xformer.benchmark.timing import REPEATED, Times, interleaved


def test_everything_runs_once_a_round_and_the_first_twice() -> None:
    ran: list[str] = []
    on_progress: list[int] = []
    steps = {name: lambda name=name: ran.append(name) for name in ("base", "one", "two")}
    times = interleaved(steps, rounds=3, warmup=2, on_progress=lambda: on_progress.append(0))
    assert {name: ran.count(name) for name in steps} == {"base": 10, "one": 5, "two": 5}
    assert len(on_progress) == len(ran)
    assert {name: len(seconds) for name, seconds in times.seconds.items()} == dict.fromkeys([*steps, REPEATED], 3)
    rounds = [ran[first : first + 4] for first in range(0, 20, 4)]
    assert all(sorted(turn) == ["base", "base", "one", "two"] for turn in rounds)
    assert len({tuple(turn) for turn in rounds}) > 2  # what comes after what is not always the same


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the time is, to be moved by hand."""
    now = [0.0]
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


def test_a_short_step_is_repeated_until_a_turn_is_long_enough(clock: list[float]) -> None:
    took = iter([1.0, 1.0, *[4.0, 1.0, 1.0, 1.0, 1.0] * 2])  # to warm up, and a step and its control of five each
    times = interleaved({"short": lambda: clock.__setitem__(0, clock[0] + next(took))}, rounds=1, least=4.5)
    assert list(took) == []
    assert times.seconds == {"short": [1.0], REPEATED: [1.0]}  # of one, and not of the first that paid for the others


def test_what_is_around_a_turn_is_not_timed(clock: list[float]) -> None:
    names: list[str] = []

    @contextmanager
    def around(name: str) -> Iterator[None]:
        clock[0] += 10
        names.append(name)
        yield
        clock[0] += 10

    times = interleaved({"base": lambda: clock.__setitem__(0, clock[0] + 1)}, rounds=2, around=around)
    assert times.seconds == {"base": [1.0, 1.0], REPEATED: [1.0, 1.0]}
    assert sorted(names) == [REPEATED] * 3 + ["base"] * 3


def test_a_speed_is_the_median_of_ratios_and_not_the_ratio_of_medians() -> None:
    # The machine was ten times as slow in the second round and a hundred times in the third.
    times = Times("base", {"base": [1.0, 10.0, 100.0], "other": [0.5, 5.0, 400.0], REPEATED: [1.0, 10.0, 100.0]})
    assert times.speed("other") == pytest.approx(2)
    assert times.speed("base", against="other") == pytest.approx(0.5)
    assert times.speed(REPEATED) == 1
    assert times.median("other") == 5
