"""Output formats of a comparison: terminal, Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from xformer.runs.summary import strict_json
from xformer.studies.comparison import Comparison
from xformer.studies.experiments import experiment_label
from xformer.studies.table import (
    QUALITY,
    findings,
    table_cells,
    table_headers,
    table_notes,
    table_records,
    table_warnings,
)

_COLOURS = {"better": "green", "worse": "red"}


def as_terminal_text(comparison: Comparison, width: int | None = None) -> str:
    """The comparison for a terminal: one table if it fits, else separate tables for quality and budget."""
    stream = io.StringIO()
    console = Console(file=stream, width=width or Console().width, force_terminal=Console().is_terminal)
    split = len(comparison.differ.named) or 1
    titles, rows = table_headers(comparison), [table_cells(comparison, row) for row in comparison.rows]
    widths = [max([*map(len, title.split()), *(len(row[c]) for row in rows)]) for c, title in enumerate(titles)]
    for columns in _parts(widths, split, console.width):
        table = Table()
        for column in columns:
            text = column < split or titles[column] == "verdict"
            least = min(widths[column], console.width // 2)
            table.add_column(
                escape(titles[column]), justify="left" if text else "right", overflow="fold", min_width=least
            )
        for row, shown in zip(comparison.rows, rows, strict=True):
            table.add_row(*(escape(shown[column]) for column in columns), style=_COLOURS.get(row.verdict))
        console.print(table)
    for sentence in table_notes(comparison):
        console.print(escape(sentence), style="dim", highlight=False)
    for sentence in findings(comparison):
        console.print(escape(sentence), highlight=False)
    for sentence in table_warnings(comparison):
        console.print(escape(sentence), style="yellow", highlight=False)
    return stream.getvalue()


def _parts(widths: Sequence[int], split: int, available: int) -> list[list[int]]:
    """Split the columns over tables in which no word is broken; each table repeats the names.

    Args:
        widths: the width of each column: names, seven of quality, budget.
        split: the number of name columns.
        available: the terminal's width.
    """
    names, edge, beside = range(split), 1, 3  # a column has a border and two spaces
    if edge + sum(width + beside for width in widths) <= available:
        return [[*range(len(widths))]]
    parts: list[list[int]] = []
    for group in (range(split, split + QUALITY), range(split + QUALITY, len(widths))):
        parts.append([*names])
        for column in group:
            needed = edge + sum(widths[c] + beside for c in [*parts[-1], column])
            if needed > available and len(parts[-1]) > split:
                parts.append([*names])
            parts[-1].append(column)
    return parts


def as_markdown(comparison: Comparison) -> str:
    """The comparison as a GitHub Markdown table, with notes below it."""
    titles = table_headers(comparison)
    lines = [titles, ["---"] * len(titles), *(table_cells(comparison, row) for row in comparison.rows)]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    below = [*findings(comparison), *table_notes(comparison), *table_warnings(comparison)]
    return table + "\n\n" + "\n".join(f"- {sentence}" for sentence in below) + "\n"


def as_latex(comparison: Comparison) -> str:
    """The comparison as a LaTeX `tabular` for booktabs; notes are comments."""
    titles, count = table_headers(comparison), len(comparison.differ.named) or 1
    aligned = "l" * count + "r" * (QUALITY - 1) + "l" + "r" * (len(titles) - count - QUALITY)
    lines = [" & ".join(map(_latex, table_cells(comparison, row))) + r" \\" for row in comparison.rows]
    below = [f"% {sentence}" for sentence in (*table_notes(comparison), *table_warnings(comparison))]
    head = " & ".join(map(_latex, titles)) + r" \\"
    begin, end = rf"\begin{{tabular}}{{{aligned}}}", r"\end{tabular}"
    return "\n".join([begin, r"\toprule", head, r"\midrule", *lines, r"\bottomrule", end, *below]) + "\n"


def as_csv(comparison: Comparison) -> str:
    """The comparison as CSV: one row for each group, unrounded numbers."""
    return _csv(table_records(comparison))


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def as_json(comparison: Comparison) -> str:
    """The comparison as JSON: groups, values by seed, warnings, and the runs left out."""
    return json.dumps(strict_json(_content(comparison)), indent=2, allow_nan=False) + "\n"


def _content(comparison: Comparison) -> dict[str, Any]:
    groups = [
        record | {"values": {str(seed): value for seed, value in row.values.items()}}
        for record, row in zip(table_records(comparison), comparison.rows, strict=True)
    ]
    plan = asdict(comparison.plan) | {"intervals": comparison.intervals}
    return {
        **({"experiment": dict(comparison.experiment)} if comparison.experiment else {}), "plan": plan,
        "metric": asdict(comparison.metric), "baseline": comparison.baseline, "differ": asdict(comparison.differ),
        "groups": groups, "warnings": list(comparison.warnings), "left_out": dict(comparison.left_out),
    }  # fmt: skip


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "table": as_terminal_text, "markdown": as_markdown, "csv": as_csv, "latex": as_latex, "json": as_json,
}  # fmt: skip

_TITLES = {"table": "{}", "markdown": "## {}\n", "latex": "% {}"}


def format_comparisons(kind: str, comparisons: Sequence[Comparison]) -> str:
    """Format comparisons in one of `FORMATS`; several experiments have a title each, or one CSV table or JSON list."""
    if len(comparisons) == 1:
        return FORMATS[kind](comparisons[0])
    if kind == "json":
        content = {"experiments": [_content(comparison) for comparison in comparisons]}
        return json.dumps(strict_json(content), indent=2, allow_nan=False) + "\n"
    if kind == "csv":
        return _csv([record for comparison in comparisons for record in table_records(comparison)])
    titles = [_TITLES[kind].format(experiment_label(comparison.experiment)) for comparison in comparisons]
    return "\n".join(f"{title}\n{FORMATS[kind](each)}" for title, each in zip(titles, comparisons, strict=True))


_SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$"}


def _latex(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)
