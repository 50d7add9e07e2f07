"""A comparison as a table of texts, and as plain records with every digit."""

import math
from dataclasses import asdict
from typing import Any

from xformer.analysis.budget import FLOPS_ARE, Budget, quantity
from xformer.analysis.comparison import Comparison, Row


def headers(comparison: Comparison) -> list[str]:
    """The columns: what is compared, quality, then budget."""
    keys = list(comparison.differ.named) or ["configuration"]
    against = f"difference to {comparison.baseline}" if comparison.baseline else "difference"
    return [
        *keys, "seeds", comparison.metric.name, "95 % interval", against, "p (Holm)", "verdict",
        "parameters", "training FLOPs", "tokens", "time", "peak memory",
    ]  # fmt: skip


def cells(comparison: Comparison, row: Row) -> list[str]:
    """A row of texts below `headers`."""
    digits = decimals(comparison)
    keys = [row.group.get(key) for key in comparison.differ.named] or ["all runs"]
    apart = row.difference
    return [
        *keys,
        str(len(row.values)),
        f"{row.mean:.{digits}f}",
        f"[{row.interval.low:.{digits}f}, {row.interval.high:.{digits}f}]" if row.interval else "one seed",
        f"{apart.mean:+.{digits}f} [{apart.low:+.{digits}f}, {apart.high:+.{digits}f}]" if apart else "-",
        "-" if row.p is None else "< 0.001" if row.p < 0.001 else f"{row.p:.3f}",
        row.verdict,
        *(quantity(name, value) for name, value in asdict(row.budget).items()),
    ]


def decimals(comparison: Comparison) -> int:
    """As many as four significant digits of the largest mean need, and two at least."""
    largest = max(abs(row.mean) for row in comparison.rows)
    return max(2, 4 - max(0, math.floor(math.log10(largest)) if largest > 0 else 0))


def notes(comparison: Comparison) -> list[str]:
    """What has to be read with the table, a sentence each."""
    better = "more is better" if comparison.metric.mode == "max" else "less is better"
    methods = {row.interval.method for row in comparison.rows if row.interval}
    spelled = {"t": "Student's t (few seeds)", "bootstrap": "BCa bootstrap"}
    found = [f"{comparison.metric.name}: {better}; mean over seeds, 95 % interval by {_joined(methods, spelled)}."]
    tested = sum(row.difference is not None for row in comparison.rows)
    if tested:
        found.append(
            f"Differences are paired on equal seeds; p by the paired t test, corrected for {tested} "
            f"comparison{'s' * (tested > 1)} (Holm); better or worse at p <= 0.05."
        )
    if any(row.budget.flops is not None for row in comparison.rows):
        found.append(FLOPS_ARE)
    summaries = [run.summary for row in comparison.rows for run in row.group.runs]
    for metric in dict.fromkeys(summary.floor_of for summary in summaries):
        of_it = [summary.floors for summary in summaries if summary.floor_of == metric]
        floors = dict.fromkeys(floor for named in of_it for floor in named.items() if floor[1] is not None)
        if 0 < len(floors) <= 4:
            known = ", ".join(f"{name} {value:.4f}" for name, value in floors)
            found.append(f"What knows nothing reaches{f' in {metric}' if metric else ''}: {known}.")
    return found


def findings(comparison: Comparison) -> list[str]:
    """A sentence per verdict."""
    digits, sentences = decimals(comparison), []
    metric = comparison.metric.name
    for row in comparison.rows:
        if row.difference is None:
            continue
        apart = row.difference
        between = f"95 % [{apart.low:+.{digits}f}, {apart.high:+.{digits}f}], {apart.pairs} seeds"
        how = f"{apart.mean:+.{digits}f} {metric}, {between}"
        link = "from" if row.verdict.startswith("no") else "than"
        sentences.append(f"{row.name}: {row.verdict} {link} {comparison.baseline} ({how}).")
    return sentences


def warned(comparison: Comparison) -> list[str]:
    """Warnings, then runs that are not in the table, each with its reason."""
    return [
        *(f"warning: {sentence}" for sentence in comparison.warnings),
        *(f"not in the table: {run}: {' '.join(reason.split())}" for run, reason in comparison.left_out.items()),
    ]


def records(comparison: Comparison) -> list[dict[str, Any]]:
    """A dictionary per group, numbers in full."""
    found = []
    for row in comparison.rows:
        keys = {key: row.group.get(key) for key in comparison.differ.named} or {"configuration": "all runs"}
        between, apart = row.interval, row.difference
        numbers = {
            "metric": comparison.metric.name,
            "seeds": len(row.values),
            "mean": row.mean,
            "low": between.low if between else None,
            "high": between.high if between else None,
            "method": between.method if between else None,
            "difference": apart.mean if apart else None,
            "difference_low": apart.low if apart else None,
            "difference_high": apart.high if apart else None,
            "pairs": apart.pairs if apart else None,
            "p_holm": row.p,
            "verdict": row.verdict,
            "lost_runs": row.lost,
        }
        found.append(keys | numbers | _budget(row.budget))
    return found


def _budget(budget: Budget) -> dict[str, float | None]:
    return {
        "parameters": budget.parameters,
        "training_flops": budget.flops,
        "tokens": budget.tokens,
        "wall_seconds": budget.seconds,
        "peak_memory_bytes": budget.memory,
    }


def _joined(methods: set[Any], spelled: dict[Any, str]) -> str:
    return " or ".join(spelled[method] for method in sorted(methods)) or "nothing: there is one seed"
