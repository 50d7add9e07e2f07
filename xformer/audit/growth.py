"""Growth of time, memory and decoding state with length: an exponent of the longest lengths, with its interval."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy import stats

from xformer.audit.stepping import state_bytes
from xformer.audit.subject import Module, Subject
from xformer.benchmark.live_bytes import extra_bytes

LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
TAIL = 4
"""The number of longest lengths to fit; at short ones costs that do not depend on length dominate."""
_SECONDS, _BYTES = 1.5, 1 << 30


@dataclass(frozen=True)
class Growth:
    """A quantity by length, and the exponent p of n^p that fits the longest lengths.

    Attributes:
        values: the values by length.
        exponent: the fitted p; NaN with fewer than three lengths.
        low: the lower end of its 95 % interval.
        high: the upper end.
    """

    values: dict[int, float]
    exponent: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.exponent):
            return "too few lengths to fit"
        return f"n^{self.exponent:.2f} [{self.low:.2f}, {self.high:.2f}]"


def fit(values: dict[int, float]) -> Growth:
    """Fit log(value) over log(length) by least squares at the longest lengths, with Student's t interval."""
    tail = sorted(values)[-TAIL:]
    nan = float("nan")
    if len(tail) < 3 or any(values[n] <= 0 for n in tail):
        return Growth(values, nan, nan, nan)
    if len({values[n] for n in tail}) == 1:
        return Growth(values, 0.0, 0.0, 0.0)
    found = stats.linregress([math.log(n) for n in tail], [math.log(values[n]) for n in tail])
    margin = float(stats.t.ppf(0.975, len(tail) - 2) * found.stderr)
    return Growth(values, float(found.slope), float(found.slope) - margin, float(found.slope) + margin)


def costs(subject: Subject, longest: int, rounds: int = 5) -> tuple[Growth, Growth]:
    """Seconds of a forward pass and bytes of a forward and backward pass, in float32, for one row.

    Times are the minimum over rounds, in which lengths take turns; with no rounds they are rough and must not be shown.
    Longer lengths are skipped once a pass takes too long.
    """
    module = subject.at(0, dtype=torch.float32)
    seconds: dict[int, float] = {}
    memory: dict[int, float] = {}
    for n in (n for n in LENGTHS if n <= longest):
        try:
            took = _time(module, n)
            memory[n] = float(extra_bytes(_train(module, n)))
        except Exception:
            memory.pop(n, None)
            continue
        seconds[n] = took
        if took > _SECONDS or memory[n] > _BYTES:
            break
    for _ in range(rounds):
        for n in seconds:
            seconds[n] = min(seconds[n], _time(module, n))
    return fit(seconds), fit(memory)


def states(subject: Subject, lengths: Sequence[int] = (8, 16, 32, 64)) -> Growth:
    """Bytes of the decoding state of one row, by number of tokens."""
    module = subject.at(0)
    return fit({n: float(state_bytes(module, n)) for n in lengths})


def _train(module: Module, length: int) -> Callable[[], None]:
    def run() -> None:
        x = module.draw(1, length).requires_grad_()
        y = module(x)
        if y.requires_grad:
            torch.autograd.grad(y.sum(), x, allow_unused=True)

    return run


def _time(module: Module, length: int) -> float:
    x = module.draw(1, length)
    gc.collect()
    repeats = []
    with torch.no_grad():
        for _ in range(2):
            begin = time.perf_counter()
            module(x)
            repeats.append(time.perf_counter() - begin)
    return statistics.median(repeats)
