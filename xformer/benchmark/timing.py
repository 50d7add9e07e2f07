"""Times of several things on a noisy machine: they take turns, and only ratios within a turn are compared."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

AGAIN = "again"
"""The baseline once more, as a control: what its ratio differs from 1 is noise."""


@dataclass(frozen=True)
class Times:
    """Seconds of everything measured, one per round.

    Attributes:
        baseline: the name of what the others are compared with.
        seconds: by name, in the order of the rounds.
    """

    baseline: str
    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        """Seconds, the median of the rounds."""
        return statistics.median(self.seconds[name])

    def speed(self, name: str, against: str | None = None) -> float:
        """How many times as fast as the baseline, or as another: the median of the rounds' own ratios."""
        other = self.seconds[against or self.baseline]
        return statistics.median(b / s for b, s in zip(other, self.seconds[name], strict=True))


def interleaved(
    steps: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 1,
    told: Callable[[], object] = lambda: None,
) -> Times:
    """Run every step once a round, the first also a second time as `again`.

    Args:
        steps: what to time, by name; the first is the baseline.
        rounds: how often.
        warmup: rounds before that are not counted.
        told: called after each step, to move a progress bar.
    """
    baseline = next(iter(steps))
    turns = {**steps, AGAIN: steps[baseline]}
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for turn in range(warmup + rounds):
        for name in _rotated(list(turns), turn):
            took = _time(turns[name])
            told()
            if turn >= warmup:
                seconds[name].append(took)
    return Times(baseline, seconds)


def _rotated(names: list[str], by: int) -> Iterator[str]:
    """Another first each round: what comes after a memory-hungry neighbour is not always the same."""
    at = by % len(names)
    yield from (*names[at:], *names[:at])


def _time(step: Callable[[], object]) -> float:
    _synchronise()
    begin = time.perf_counter()
    step()
    _synchronise()
    return time.perf_counter() - begin


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
