"""Figures of a comparison: learning curves, quality against cost, the metric by length."""

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xformer.config.identity import Value, override_value
from xformer.runs.recorded_run import RecordedRun
from xformer.studies.bounded import bounded_interval
from xformer.studies.budget import format_quantity
from xformer.studies.comparison import Comparison, ComparisonRow
from xformer.studies.metric import metric_bounds
from xformer.studies.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The palette of Okabe and Ito, safe for the colour-blind; markers distinguish groups in greyscale.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"
_LINES = ("-", "--", ":", "-.")
_LINE = 0.22  # inches of a line of the legend
_CHOSEN: dict[str, Any] = {
    "marker": "o", "markersize": 12, "markerfacecolor": "none", "markeredgewidth": 1.6, "linestyle": "none",
}  # fmt: skip
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "font.size": 10, "font.family": "sans-serif", "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#e5e5e5", "legend.frameon": False,
    "text.parse_math": False,
}  # fmt: skip
Points = Sequence[tuple[float, Sequence[float]]]


def figures(comparison: Comparison) -> dict[str, "Figure"]:
    """The figures of a comparison that the runs have data for, by name: `curves`, `cost`, `length`, `tuning`."""
    with _style():
        made = {
            "curves": curves_figure(comparison),
            "cost": cost_figure(comparison),
            "length": length_figure(comparison),
            "tuning": tuning_figure(comparison),
        }
    return {name: figure for name, figure in made.items() if figure is not None}


def curves_figure(comparison: Comparison) -> "Figure | None":
    """The monitored metric over the optimiser steps, with 95 % intervals; None if no run has a curve here."""
    runs = [run for row in comparison.rows for run in row.group.runs]
    watched = next((run.summary.monitor.name for run in runs if run.summary.monitor), None)
    lines = {row.name: _curve(row.group.runs, watched) for row in comparison.rows if watched}
    return _lines(lines, "optimiser step", str(watched))


def length_figure(comparison: Comparison) -> "Figure | None":
    """The metric over the sequence length, from metrics such as `test/loss@512`; None without such metrics.

    `test/loss` itself is plotted at the block size of training. Data without blocks has no such point, because its
    examples differ in length.
    """
    stem = comparison.metric.name.partition("@")[0]
    lines = {row.name: _lengths(row.group.runs, stem) for row in comparison.rows}
    figure = _lines(lines, "length", stem)
    if figure:
        figure.axes[0].set_xscale("log", base=2)
        figure.axes[0].xaxis.set_major_formatter("{x:.0f}")
    return figure


def cost_figure(comparison: Comparison) -> "Figure | None":
    """Quality against training FLOPs, or time where these are unknown, with the Pareto front; None without either."""
    name = next((n for n in ("flops", "seconds") if all(getattr(row.budget, n) for row in comparison.rows)), None)
    if name is None:
        return None
    figure, (axes,) = _empty()
    for index, row in enumerate(comparison.rows):
        x, reach = getattr(row.budget, name), _reach(row.mean, row.interval)
        look = _look(index) | {"linestyle": "none", "capsize": 3}
        axes.errorbar([x], [row.mean], yerr=[[r] for r in reach], label=row.name, **look)
    front = pareto_front(comparison, name)
    axes.plot(
        [getattr(row.budget, name) for row in front], [row.mean for row in front],
        color="#999999", linestyle="--", linewidth=1, zorder=0, label="Pareto front",
    )  # fmt: skip
    axes.xaxis.set_major_formatter(lambda value, _: format_quantity(name, value))
    axes.xaxis.set_major_locator(_few_ticks())
    _finish(figure, axes, {"flops": "training FLOPs", "seconds": "time"}[name], comparison.metric.name)
    return figure


def tuning_figure(comparison: Comparison) -> "Figure | None":
    """The metric of the trials by each tuned setting, the chosen one marked; None where nothing was tuned.

    Of several tuned settings each has axes of its own, where the others have their chosen values. A setting that
    diverged is left out of its line.
    """
    tuning = comparison.tuning
    lines = {row.name: row.tuned for row in comparison.rows if row.tuned and row.tuned.chosen}
    if tuning is None or not lines:
        return None
    figure, every = _empty(len(tuning.keys))
    for axes, key in zip(every, tuning.keys, strict=True):
        tried = dict.fromkeys(s.values[key] for variant in lines.values() for s in variant.settings)
        place, logarithmic = _scale([*tried])
        for index, (name, variant) in enumerate(lines.items()):
            assert variant.chosen is not None
            others = {**variant.chosen.values, key: None}
            along = [s for s in variant.settings if {**s.values, key: None} == others and s.mean is not None]
            scores = {place[s.values[key]]: [v for v in s.scores.values() if v is not None] for s in along}
            look = _look(index)
            _line(axes, name, sorted(scores.items()), tuning.metric.name, look)
            axes.plot([place[variant.chosen.values[key]]], [variant.chosen.mean], color=look["color"], **_CHOSEN)
        axes.set_xlabel(key)
        if logarithmic:
            axes.set_xscale("log")
        axes.set_xticks([*place.values()], [override_value(value) for value in place])
        axes.minorticks_off()
    every[0].plot([], [], color="#444444", label="chosen", **_CHOSEN)
    _finish(figure, every[0], tuning.keys[0], f"{tuning.metric.name} of the trials")
    return figure


def _scale(values: Sequence[Value]) -> tuple[dict[Value, float], bool]:
    """Where each value stands on an axis, and whether that is logarithmic; names stand in their order."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        return {value: float(index) for index, value in enumerate(values)}, False
    return {value: float(value) for value in sorted(numbers)}, min(numbers) > 0 and max(numbers) >= 4 * min(numbers)


def pareto_front(comparison: Comparison, name: str) -> list[ComparisonRow]:
    """The groups that no other group beats in quality at the same cost or less; `name` is a field of `Budget`."""
    sign = 1 if comparison.metric.mode == "max" else -1
    ordered = sorted(comparison.rows, key=lambda row: (getattr(row.budget, name), -sign * row.mean))
    front: list[ComparisonRow] = []
    for row in ordered:
        if not front or sign * row.mean > sign * front[-1].mean:
            front.append(row)
    return front


def figure_svg(figure: "Figure", name: str) -> str:
    """A figure as SVG to embed in a page, with text as text and without external resources."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with _style({"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata=nothing)
    text = stream.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


def write_figures(drawn: Mapping[str, "Figure"], folder: Path) -> list[Path]:
    """Every figure of `figures` as SVG and PNG (300 dpi)."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in drawn.items():
        (folder / f"{name}.svg").write_text('<?xml version="1.0" encoding="utf-8"?>\n' + figure_svg(figure, name))
        with _style():
            figure.savefig(folder / f"{name}.png", dpi=300)
        written += [folder / f"{name}.svg", folder / f"{name}.png"]
    return written


@contextmanager
def _style(further: Mapping[str, Any] | None = None) -> Iterator[None]:
    """The style of figures: `$` in names is literal, and a missing glyph raises no warning."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE | dict(further or {})), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def _curve(runs: Sequence[RecordedRun], metric: str | None) -> Points:
    lines = [line for run in runs if (line := run.curve(metric or ""))]
    common = sorted(set.intersection(*map(set, lines))) if lines else []
    return [(float(step), [line[step] for line in lines]) for step in common]


def _lengths(runs: Sequence[RecordedRun], stem: str) -> Points:
    found: dict[int, list[float]] = {}
    for run in runs:
        at = {name.removeprefix(f"{stem}@"): value for name, value in run.summary.metrics.items() if "@" in name}
        further = {int(length): value for length, value in at.items() if length.isdigit()}
        block = run.settings.get("data.block")
        trained = {block: run.value(stem)} if further and isinstance(block, int) else {}
        for length, value in {**trained, **further}.items():
            if value is not None:
                found.setdefault(length, []).append(value)
    return [(float(length), found[length]) for length in sorted(found)]


def _lines(lines: Mapping[str, Points], x: str, y: str) -> "Figure | None":
    if not any(lines.values()):
        return None
    figure, (axes,) = _empty()
    for index, (name, points) in enumerate(lines.items()):
        _line(axes, name, points, y, _look(index))
    _finish(figure, axes, x, y)
    return figure


def _line(axes: Any, name: str, points: Points, metric: str, look: Mapping[str, Any]) -> None:
    """The means at each point, and their 95 % intervals as a band."""
    where, means = [step for step, _ in points], [sum(values) / len(values) for _, values in points]
    axes.plot(where, means, label=name, markersize=4, **look)
    between = [bounded_interval(values, metric_bounds(metric)) for _, values in points]
    reach = [_reach(mean, found) for mean, found in zip(means, between, strict=True)]
    low = [mean - below for mean, (below, _) in zip(means, reach, strict=True)]
    high = [mean + above for mean, (_, above) in zip(means, reach, strict=True)]
    axes.fill_between(where, low, high, color=look["color"], alpha=0.12, linewidth=0)


def _reach(mean: float, found: Interval | None) -> tuple[float, float]:
    """The lengths of the interval below and above the mean."""
    return (max(0.0, mean - found.low), max(0.0, found.high - mean)) if found else (0.0, 0.0)  # never -1e-17


def _empty(number: int = 1) -> tuple["Figure", Sequence[Any]]:
    """A figure, and its axes side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6 if number == 1 else 4.0 * number, 4.0), layout="constrained")
    return figure, [*figure.subplots(1, number, sharey=True, squeeze=False)[0]]


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)


def _finish(figure: "Figure", axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    handles, labels = axes.get_legend_handles_labels()
    longest = max(map(len, labels))
    columns = max(1, min(3, 60 // (longest + 4)))
    figure.set_figheight(figure.get_figheight() + _LINE * max(0, -(-len(labels) // columns) - 2))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def _look(index: int) -> dict[str, Any]:
    """The colour, marker and line style of a group; line styles change when colours repeat."""
    kinds = len(_COLOURS)
    line = _LINES[index // kinds % len(_LINES)]
    return {"color": _COLOURS[index % kinds], "marker": _MARKERS[index % kinds], "linestyle": line}
