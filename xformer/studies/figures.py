"""Figures of a comparison: learning curves, quality against cost, the metric by length, the difference by size."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xformer.runs.recorded_run import RecordedRun
from xformer.studies.bounded import bounded_interval
from xformer.studies.comparison import Comparison, ComparisonRow
from xformer.studies.figure_panels import GROUP, SEED, Panel, empty_figure, finish, looks, panels
from xformer.studies.figure_style import PAPER, RECORD, PlotStyle, drawing
from xformer.studies.figure_svg import figure_svg
from xformer.studies.metric import metric_bounds
from xformer.studies.scaling_figure import scaling_figure
from xformer.studies.statistics import Interval
from xformer.studies.trivial_lines import trivial_lines
from xformer.studies.tuning_figure import tuning_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = dict[float, float]
"""A run's values: by step, or by length."""
Curves = Mapping[str, Values]
"""By the name of a run."""


def length_figure_of(comparison: Comparison, style: PlotStyle) -> "Figure | None":
    """`length_figure` alone, in a style."""
    with drawing(style):
        return length_figure(comparison, style)


def scaling_figure_of(comparison: Comparison, style: PlotStyle) -> "Figure | None":
    """`scaling_figure` alone, in a style."""
    with drawing(style):
        return scaling_figure(comparison, style)


def figures(
    comparison: Comparison, style: PlotStyle = RECORD, seeds: bool = False, curves: Curves | None = None
) -> dict[str, "Figure"]:
    """The figures that the runs have data for, by name: `curves`, `cost`, `length`, `scaling`, `tuning`.

    Args:
        comparison: what to draw.
        style: width, text and legend.
        seeds: draw each run too, thinly; in an SVG these have ids of their own, so that a page can hide them.
        curves: as `learning_curves` reads them, where more than one style is drawn; None to read them here.
    """
    with drawing(style):
        made = {
            "curves": curves_figure(comparison, style, seeds, curves),
            "cost": cost_figure(comparison, style, seeds),
            "length": length_figure(comparison, style, seeds),
            "scaling": scaling_figure(comparison, style, seeds),
            "tuning": tuning_figure(comparison, style),
        }
    return {name: figure for name, figure in made.items() if figure is not None}


def learning_curves(comparison: Comparison) -> Curves:
    """The monitored metric of each run by optimiser step."""
    watched = _watched(comparison)
    runs = [run for row in comparison.rows for run in row.group.runs]
    return {run.name: {float(step): value for step, value in run.curve(watched).items()} for run in runs if watched}


def curves_figure(
    comparison: Comparison, style: PlotStyle = RECORD, seeds: bool = False, curves: Curves | None = None
) -> "Figure | None":
    """The monitored metric over the optimiser steps, with 95 % intervals; None if no run has a curve here."""
    from matplotlib.ticker import MaxNLocator

    watched = _watched(comparison)
    if watched is None:
        return None
    lines = learning_curves(comparison) if curves is None else curves
    figure = _lines(comparison, style, seeds, lambda run: lines[run.name], "optimiser step", watched)
    for axes in figure.axes if figure else ():
        axes.xaxis.set_major_locator(MaxNLocator(6 if style.width > 5 else 4, integer=True, steps=[1, 2, 5, 10]))
    return figure


def length_figure(comparison: Comparison, style: PlotStyle = RECORD, seeds: bool = False) -> "Figure | None":
    """The metric over the sequence length, from metrics such as `test/loss@512`; None without such metrics.

    `test/loss` itself is plotted at the block size of training. Data without blocks has no such point, because its
    examples differ in length. The longest length of training is marked.
    """
    stem = comparison.metric.name.partition("@")[0]
    figure = _lines(comparison, style, seeds, lambda run: _lengths(run, stem), "length", stem, trained=True)
    if figure:
        lengths = {x for row in comparison.rows for run in row.group.runs for x in _lengths(run, stem)}
        for axes in figure.axes:
            axes.set_xscale("log", base=2)
            _ticks_at(axes, sorted(lengths), style)
    return figure


def cost_figure(comparison: Comparison, style: PlotStyle = RECORD, seeds: bool = False) -> "Figure | None":
    """Quality against training FLOPs, or time where these are unknown, with the Pareto front; None without either."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    name = next((n for n in ("flops", "seconds") if all(getattr(row.budget, n) for row in comparison.rows)), None)
    if name is None:
        return None
    found = panels(comparison)
    figure, axes = empty_figure(style, [panel.title for panel in found])
    look = looks(found)
    for each, panel in zip(axes, found, strict=True):
        for label, row in panel.rows.items():
            x = getattr(row.budget, name)
            if seeds:
                each.plot([x] * len(row.values), list(row.values.values()), gid=SEED, linestyle="none", alpha=0.5,
                          label="_" + label, **look[label])  # fmt: skip
            reach = _reach(row.mean, row.interval)
            bar = each.errorbar([x], [row.mean], yerr=[[r] for r in reach], label=label, linestyle="none", capsize=3,
                                **look[label])  # fmt: skip
            bar.lines[0].set(gid=GROUP, label=f"_{label}")
        for row in panel.others:
            each.plot([getattr(row.budget, name)], [row.mean], "o", color="#cccccc", zorder=0)
        front = pareto_front([*panel.rows.values(), *panel.others], comparison.metric.mode, name)
        each.plot(
            [getattr(row.budget, name) for row in front], [row.mean for row in front],
            color="#999999", linestyle="--", linewidth=style.line / 2, zorder=0, label="Pareto front",
        )  # fmt: skip
        each.xaxis.set_major_locator(MaxNLocator(5 if len(axes) == 1 and style.width > 5 else 3))
        each.xaxis.set_major_formatter(EngFormatter(sep=" "))
        each.ticklabel_format(axis="y", useOffset=False)
        trivial_lines(each, [*panel.rows.values()], comparison.metric.name)
    finish(figure, axes, style, {"flops": "training FLOPs", "seconds": "time (s)"}[name], comparison.metric.name)
    return figure


def pareto_front(rows: Sequence[ComparisonRow], mode: str, name: str) -> list[ComparisonRow]:
    """The groups that no other group beats in quality at the same cost or less, by cost: an attribute of `Budget`."""
    sign = 1 if mode == "max" else -1
    ordered = sorted(rows, key=lambda row: (getattr(row.budget, name), -sign * row.mean))
    front: list[ComparisonRow] = []
    for row in ordered:
        if not front or sign * row.mean > sign * front[-1].mean:
            front.append(row)
    return front


def write_figures(
    drawn: Mapping[str, "Figure"], folder: Path, style: PlotStyle = RECORD, suffixes: Sequence[str] = ("svg", "png")
) -> list[Path]:
    """Every figure of `figures` as SVG and PNG (300 dpi), or as PDF."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in drawn.items():
        for suffix in suffixes:
            path = folder / f"{name}.{suffix}"
            if suffix == "svg":
                path.write_text('<?xml version="1.0" encoding="utf-8"?>\n' + figure_svg(figure, name))
            else:
                metadata = {"CreationDate": None} if suffix == "pdf" else {}
                with drawing(style):
                    figure.savefig(path, dpi=300, metadata=metadata)
            written.append(path)
    return written


def write_paper_figures(comparison: Comparison, folder: Path, curves: Curves | None = None) -> list[Path]:
    """Every figure for one column of a paper and for two: `NAME-column` and `NAME-page`, as PDF, SVG and PNG."""
    written = []
    for width, style in PAPER.items():
        drawn = {f"{name}-{width}": figure for name, figure in figures(comparison, style, curves=curves).items()}
        written += write_figures(drawn, folder, style, ("pdf", "svg", "png"))
    return written


def _watched(comparison: Comparison) -> str | None:
    runs = [run for row in comparison.rows for run in row.group.runs]
    return next((run.summary.monitor.name for run in runs if run.summary.monitor), None)


def _lengths(run: RecordedRun, stem: str) -> Values:
    at = {name.removeprefix(f"{stem}@"): value for name, value in run.summary.metrics.items() if "@" in name}
    found = {float(length): value for length, value in at.items() if length.isdigit()}
    block = run.settings.get("data.block")
    trained = {float(block): run.value(stem)} if found and isinstance(block, int) else {}
    return {length: value for length, value in sorted((trained | found).items()) if value is not None}


def _trained_lengths(rows: Sequence[ComparisonRow]) -> list[int]:
    """The longest lengths that the runs were trained on: blocks of text, or items of up to a length."""
    found = [row.group.settings.get(key) for row in rows for key in ("data.block", "data.max_length")]
    return sorted({length for length in found if isinstance(length, int) and not isinstance(length, bool)})


def _lines(
    comparison: Comparison,
    style: PlotStyle,
    seeds: bool,
    values: Callable[[RecordedRun], Values],
    x: str,
    y: str,
    trained: bool = False,
) -> "Figure | None":
    """A line for each group, the mean over its runs with a band, over what `values` gives of each."""
    by_row = {row.name: [line for run in row.group.runs if (line := values(run))] for row in comparison.rows}
    if not any(by_row.values()):
        return None
    found = panels(comparison)
    figure, axes = empty_figure(style, [panel.title for panel in found])
    look = looks(found)
    for each, panel in zip(axes, found, strict=True):
        for other in panel.others:
            where, means, _ = _means(by_row[other.name], y)
            each.plot(where, means, color="#cccccc", zorder=0, linewidth=style.line / 2)
        for label, row in panel.rows.items():
            where, means, between = _means(by_row[row.name], y)
            each.plot(where, means, label=label, gid=GROUP, **look[label])
            reach = [_reach(mean, found) for mean, found in zip(means, between, strict=True)]
            low = [mean - below for mean, (below, _) in zip(means, reach, strict=True)]
            high = [mean + above for mean, (_, above) in zip(means, reach, strict=True)]
            each.fill_between(where, low, high, color=look[label]["color"], alpha=0.12, linewidth=0)
            if seeds:
                _draw_seeds(each, row, values, label, look[label]["color"], style)
        _mark(each, panel, style, y, trained)
        each.ticklabel_format(axis="y", useOffset=False)
    finish(figure, axes, style, x, y)
    return figure


def _draw_seeds(
    axes: Any, row: ComparisonRow, values: Callable[[RecordedRun], Values], label: str, colour: str, style: PlotStyle
) -> None:
    for run in row.group.runs:
        line = values(run)
        axes.plot(list(line), list(line.values()), color=colour, linewidth=style.line / 2, alpha=0.7, gid=SEED,
                  label=f"_{label} seed={run.seed}", marker=".", markersize=0.7 * style.marker)  # fmt: skip


def _mark(axes: Any, panel: Panel, style: PlotStyle, y: str, trained: bool) -> None:
    """The trivial baselines, and the trained lengths, as lines with entries of the legend."""
    rows = list(panel.rows.values())
    trivial_lines(axes, rows, y)
    for length in _trained_lengths(rows) if trained else ():
        axes.axvline(length, color="#333333", linestyle="-.", linewidth=0.8 * style.line, zorder=1,
                     label=f"trained up to {length}")  # fmt: skip


def _means(lines: Sequence[Values], metric: str) -> tuple[list[float], list[float], list[Interval | None]]:
    """Where all lines have a value: their means and intervals."""
    where = sorted(set.intersection(*map(set, lines))) if lines else []
    columns = [[line[x] for line in lines] for x in where]
    bounds = metric_bounds(metric)
    return where, [sum(c) / len(c) for c in columns], [bounded_interval(c, bounds) for c in columns]


def _reach(mean: float, found: Interval | None) -> tuple[float, float]:
    """The lengths of the interval below and above the mean."""
    return (max(0.0, mean - found.low), max(0.0, found.high - mean)) if found else (0.0, 0.0)  # never -1e-17


def _ticks_at(axes: Any, lengths: Sequence[float], style: PlotStyle) -> None:
    """Ticks at the lengths measured, but for those whose label would touch another; each label once."""
    from matplotlib.ticker import FixedLocator, NullLocator

    span = max(math.log2(lengths[-1] / lengths[0]), 1e-9)
    shown = 0.75 * style.characters() / min(style.columns, len(axes.figure.axes))
    kept = [lengths[-1]]
    for length in reversed(lengths[:-1]):
        if math.log2(kept[-1] / length) / span * shown >= len(f"{kept[-1]:.0f}") + 1:
            kept.append(length)
    axes.xaxis.set_major_locator(FixedLocator(kept))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:.0f}")
