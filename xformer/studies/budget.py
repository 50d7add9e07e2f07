"""The training budget of a group of runs, and warnings where the budgets of groups differ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from xformer.runs.recorded_run import RecordedRun

TOLERANCE = 0.05


@dataclass(frozen=True)
class Budget:
    """The mean budget of a group of runs; None where a run did not record a quantity.

    Attributes:
        parameters: trainable parameters.
        flops: the model's FLOPs per token, forward and backward, at the longest sequence, times the tokens trained
            on. An estimate: padding is not counted, and attention costs less in a shorter sequence.
        tokens: tokens trained on, without padding.
        seconds: wall time.
        memory: peak memory, in bytes.
    """

    parameters: float | None
    flops: float | None
    tokens: float | None
    seconds: float | None
    memory: float | None


FLOPS_ARE = (
    "Training FLOPs are FLOPs per token at the longest sequence times the tokens without padding; shorter sequences "
    "are counted as the longest."
)
NAMES = {
    "parameters": "parameters", "flops": "FLOPs", "tokens": "tokens", "seconds": "time", "memory": "peak memory",
}  # fmt: skip


def spent_budget(runs: Sequence[RecordedRun]) -> Budget:
    """The mean budget of runs."""
    found = [run.summary for run in runs]
    flops = [
        s.flops_per_token * s.tokens_seen if s.flops_per_token is not None and s.tokens_seen is not None else None
        for s in found
    ]
    return Budget(
        _mean([s.parameters for s in found]),
        _mean(flops),
        _mean([s.tokens_seen for s in found]),
        _mean([s.wall_seconds for s in found]),
        _mean([s.peak_memory_bytes for s in found]),
    )


def unequal_budgets(budgets: dict[str, Budget]) -> list[str]:
    """A warning for each quantity in which the budgets differ by more than 5 %."""
    sentences = []
    for field in fields(Budget):
        known = {name: getattr(budget, field.name) for name, budget in budgets.items()}
        known = {name: value for name, value in known.items() if value}
        if len(known) < 2:
            continue
        least, most = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
        ratio = known[most] / known[least]
        if ratio > 1 + TOLERANCE:
            sentences.append(
                f"the groups differ by {100 * (ratio - 1):.0f} % in {NAMES[field.name]}: "
                f"{format_quantity(field.name, known[least])} ({least}) to "
                f"{format_quantity(field.name, known[most])} ({most})."
            )
    return sentences


def format_quantity(name: str, value: float | None) -> str:
    """Format a quantity of a budget: `109,898`, `3.2 GFLOPs`, `97 s`."""
    if value is None:
        return "-"
    if name == "parameters":
        return f"{value:,.0f}"
    if name == "seconds":
        return f"{value:.1f} s" if value < 100 else f"{value:,.0f} s"
    return si_number(value) + {"flops": "FLOPs", "tokens": "", "memory": "B"}[name]


def si_number(number: float) -> str:
    """Format a number with three digits and an SI prefix: `785 k`."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if abs(number) < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} E"


def _mean(values: Sequence[float | int | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    mean = sum(known) / len(known) if known and len(known) == len(values) else math.inf
    return mean if math.isfinite(mean) else None
