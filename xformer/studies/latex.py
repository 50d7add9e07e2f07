"""A comparison as a LaTeX table: booktabs, columns by choice, mean ± interval, the best in bold."""

import math
from collections.abc import Callable, Sequence

from xformer.errors import ConfigError
from xformer.studies.budget import format_quantity
from xformer.studies.comparison import Comparison, ComparisonRow
from xformer.studies.statistics import Interval
from xformer.studies.table import decimals, table_notes, table_warnings

COLUMN_POINTS, PAGE_POINTS = 234.0, 397.0
"""The width of a column and of the text in common two-column and one-column styles (ICML, ACL; NeurIPS), in points."""
DEFAULT = ("mean", "difference")


def as_latex(comparison: Comparison, columns: Sequence[str] = ()) -> str:
    r"""The comparison as a `table` for the package booktabs; notes are comments.

    Of the rows that share a baseline, the best mean is in bold. A difference that is shown has a star. An interval that
    is as far from its mean below as above, to the last digit, is `$\pm$`; another has an upper and a lower reach.
    A table that is wider than a column is a `table*`, across both.

    Args:
        comparison: what to print.
        columns: of `COLUMNS`, in their order; empty for the mean and the difference.

    Raises:
        ConfigError: a column is not known.
    """
    wanted = list(columns) or list(DEFAULT)
    for column in wanted:
        if column not in COLUMNS:
            raise ConfigError(f"--columns {column} is not a column; choose of {', '.join(COLUMNS)}.")
    best = _best(comparison)
    names = list(comparison.differ.named) or ["configuration"]
    titles = [_escaped(name) for name in names] + [COLUMNS[column][0](comparison) for column in wanted]
    rows = [
        [
            *(_escaped(row.group.get(key)) for key in comparison.differ.named or ()),
            *([] if comparison.differ.named else ["all runs"]),
            *(COLUMNS[column][1](comparison, row, row.name in best) for column in wanted),
        ]
        for row in comparison.rows
    ]
    kind = "table" if table_points(titles, rows) <= COLUMN_POINTS else "table*"
    aligned = "l" * len(names) + "".join("l" if column == "verdict" else "r" for column in wanted)
    label = "".join(c if c.isalnum() else "-" for c in comparison.metric.name)
    lines = [
        rf"\begin{{{kind}}}[t]",
        r"\centering",
        r"\small",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{_caption(comparison, wanted)}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{@{{}}{aligned}@{{}}}}",
        r"\toprule",
        " & ".join(titles) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        rf"\end{{{kind}}}",
        *(f"% {sentence}" for sentence in (*table_notes(comparison), *table_warnings(comparison))),
    ]
    return "\n".join(lines) + "\n"


def table_points(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> float:
    """About how wide a table is at 9 points (`small` in a text of 10), in points."""
    widest = [max(_points(cell) for cell in column) for column in zip(titles, *rows, strict=True)]
    return sum(widest) + 8.0 * (len(widest) - 1)


def _points(cell: str) -> float:
    """About how wide a cell is: its characters without commands, sub- and superscripts at seven tenths."""
    plain, size, points = cell, 1.0, 0.0
    for command in (r"\boldsymbol", r"\mathbf", r"\textbf", "{}", "$", r"\,"):
        plain = plain.replace(command, "")
    plain = plain.replace(r"\pm", "±").replace("\\", "")
    for character in plain:
        if character in "_^" and "{" in plain:
            size = 0.7
        elif character == "}":
            size = 1.0
        elif character != "{":
            points += size * (7.5 if character == "±" else 2.8 if character in ".,[]() ilj" else 5.0)
    return points


def _caption(comparison: Comparison, wanted: Sequence[str]) -> str:
    seeds = sorted({len(row.values) for row in comparison.rows})
    number = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    better = "more" if comparison.metric.mode == "max" else "less"
    parts = [
        f"{_escaped(comparison.metric.name)} ({better} is better): mean over {number} seeds"
        + (r" with its 95\,\% interval" if "mean" in wanted else "")
        + "; the best in bold."
    ]
    tested = [row.difference for row in comparison.rows if row.difference]
    if tested and "difference" in wanted:
        level = {
            "corrected": "with the interval of the corrected test",
            "plain": r"with its 95\,\% interval, not corrected",
            "simultaneous": r"with intervals that hold together at 95\,\%",
        }[comparison.intervals]
        holm = f", Holm over {len(tested)}" if len(tested) > 1 else ""
        parts.append(
            f"Difference to {_escaped(comparison.baseline)} on equal seeds, {level}; a star where the paired test"
            rf" shows it ($p \leq 0.05${holm})."
        )
    return " ".join(parts)


def _best(comparison: Comparison) -> set[str]:
    """The names of the best rows, one for each set of rows with a common baseline."""
    sign = 1 if comparison.metric.mode == "max" else -1
    keys = [key for key in comparison.differ.named if f" {key}=" not in f" {comparison.baseline}"]
    found: dict[tuple[str, ...], ComparisonRow] = {}
    for row in comparison.rows:
        place = tuple(row.group.get(key) for key in keys)
        if place not in found or sign * row.mean > sign * found[place].mean:
            found[place] = row
    return {row.name for row in found.values()}


def _measured(value: float, between: Interval | None, digits: int, sign: str = "") -> str:
    r"""`2.288 \pm 0.054`, or with an upper and a lower reach where they are not equal."""
    shown = f"{value:{sign}.{digits}f}"
    if between is None or not math.isfinite(between.high - between.low):
        return shown
    above, below = between.high - value, value - between.low
    if round(abs(above - below) * 10**digits) <= 1:  # the last digit printed
        return rf"{shown} \pm {max(above, below):.{digits}f}"
    return f"{shown}^{{+{above:.{digits}f}}}_{{-{below:.{digits}f}}}"


def _digits(comparison: Comparison) -> int:
    """Decimals: what shows two digits of the typical reach of an interval, and no more than a table of text has."""
    reaches = sorted((row.interval.high - row.interval.low) / 2 for row in comparison.rows if row.interval)
    typical, most = reaches[len(reaches) // 2] if reaches else 0.0, decimals(comparison)
    return min(most, max(1, 1 - math.floor(math.log10(typical)))) if typical > 0 else most


def _mean(comparison: Comparison, row: ComparisonRow, best: bool) -> str:
    text = _measured(row.mean, row.interval, _digits(comparison))
    return rf"$\mathbf{{{text}}}$" if best else f"${text}$"


def _interval(comparison: Comparison, row: ComparisonRow, best: bool) -> str:
    digits = _digits(comparison)
    return f"$[{row.interval.low:.{digits}f}, {row.interval.high:.{digits}f}]$" if row.interval else "one seed"


def _difference(comparison: Comparison, row: ComparisonRow, best: bool) -> str:
    if row.difference is None:
        return "--"
    star = "^{*}" if row.verdict in ("better", "worse") else ""
    text = _measured(row.difference.mean, row.reach, _digits(comparison), "+")
    return f"${text}{star}$" if "^" not in text or not star else f"${{{text}}}{star}$"


def _p(comparison: Comparison, row: ComparisonRow, best: bool) -> str:
    return "--" if row.p is None else "$<0.001$" if row.p < 0.001 else f"${row.p:.3f}$"


def _detectable(comparison: Comparison, row: ComparisonRow, best: bool) -> str:
    known = row.test.smallest if row.test else None
    return "--" if known is None else f"${known:.{_digits(comparison)}f}$"


def _budget(name: str) -> Callable[[Comparison, ComparisonRow, bool], str]:
    def quantity(comparison: Comparison, row: ComparisonRow, best: bool) -> str:
        return _escaped(format_quantity(name, getattr(row.budget, name)))

    return quantity


_Column = tuple[Callable[[Comparison], str], Callable[[Comparison, ComparisonRow, bool], str]]
COLUMNS: dict[str, _Column] = {
    "seeds": (lambda _: "seeds", lambda _, row, __: str(len(row.values))),
    "mean": (lambda comparison: _escaped(comparison.metric.name), _mean),
    "interval": (lambda _: r"95\,\% interval", _interval),
    "difference": (lambda _: "difference", _difference),
    "p": (lambda _: "$p$", _p),
    "detectable": (lambda _: "detectable", _detectable),
    "verdict": (lambda _: "verdict", lambda _, row, __: _escaped(row.verdict)),
    "parameters": (lambda _: "parameters", _budget("parameters")),
    "flops": (lambda _: "training FLOPs", _budget("flops")),
    "tokens": (lambda _: "tokens", _budget("tokens")),
    "time": (lambda _: "time", _budget("seconds")),
    "memory": (lambda _: "peak memory", _budget("memory")),
}
"""What a column is called in `--columns`: its title, and its cell."""

_SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "\\": r"\textbackslash{}",
}  # fmt: skip


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)
