"""Timing on a noisy machine: candidates take turns, and only ratios within a turn are compared."""

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from xformer.core import devices

REPEATED = "again"
"""The name of the repeated baseline, a control: the deviation of its ratio from 1 is noise."""
_MOST = 10_000


@dataclass(frozen=True)
class Times:
    """The seconds of each candidate, one per round.

    Attributes:
        baseline: the name of the reference.
        seconds: by name, in the order of the rounds.
    """

    baseline: str
    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        """The median seconds over the rounds."""
        return statistics.median(self.seconds[name])

    def speed(self, name: str, against: str | None = None) -> float:
        """The speed relative to the baseline or another candidate: the median of the ratios within rounds."""
        other = self.seconds[against or self.baseline]
        return statistics.median(b / s for b, s in zip(other, self.seconds[name], strict=True))


def number_of_turns(steps: int, *, rounds: int, warmup: int = 1) -> int:
    """The number of turns that `interleaved` takes for this many candidates, control included."""
    return (steps + 1) * (warmup + rounds)


def interleaved(
    steps: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 1,
    least: float = 0.0,
    around: Callable[[str], AbstractContextManager[object]] = nullcontext,
    on_progress: Callable[[], object] = lambda: None,
) -> Times:
    """Run every step once a round in varying order, and the first step twice, as a control named `again`.

    Args:
        steps: what to time, by name; the first is the baseline.
        rounds: the number of rounds.
        warmup: the number of untimed rounds before.
        least: the minimum seconds of a turn, estimated by the warm-up: short steps are repeated, and the median of a
            turn counts. So a step after a memory-intensive one does not pay for its effect on caches.
        around: returns a context manager for a turn, from the step's name; entering and leaving it is not timed.
        on_progress: called after each turn, to move a progress bar.
    """
    baseline = next(iter(steps))
    turns = {**steps, REPEATED: steps[baseline]}
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    repeats = dict.fromkeys(turns, 1)
    for turn in range(warmup + rounds):
        for name in random.Random(turn).sample(list(turns), len(turns)):
            with around(name):
                took = statistics.median(_time(turns[name]) for _ in range(repeats[name]))
            on_progress()
            if turn >= warmup:
                seconds[name].append(took)
            else:
                repeats[name] = min(_MOST, max(1, math.ceil(least / max(took, 1e-9))))
    return Times(baseline, seconds)


def _time(step: Callable[[], object]) -> float:
    devices.synchronize()
    begin = time.perf_counter()
    step()
    devices.synchronize()
    return time.perf_counter() - begin
