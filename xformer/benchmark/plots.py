"""Plots of benchmarks: lines by length with logarithmic axes, and bars."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def plot_by_length(
    rows: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    x: str,
    y: str,
    panel: str,
    names: Mapping[Any, str],
    label: str,
) -> None:
    """Draw y over x for each variant, a panel for each value of one column.

    Args:
        rows: with the columns x, y, `variant` and that of the panels.
        path: the file of the picture; its suffix decides the format.
        x: the column of the horizontal axis.
        y: the column of the vertical axis.
        panel: the column that tells panels apart.
        names: its values, and the panels' titles.
        label: the label of the vertical axis.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator

    shown = [value for value in names if any(row[panel] == value for row in rows)]
    figure, axes = pyplot.subplots(1, len(shown), figsize=(5.5 * len(shown), 4), sharey=True, squeeze=False)
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    colours = pyplot.colormaps["tab20"].colors  # type: ignore[attr-defined]
    for axis, value in zip(axes[0], shown, strict=True):
        for number, variant in enumerate(variants):
            points = sorted((row[x], row[y]) for row in rows if row["variant"] == variant and row[panel] == value)
            if points:
                style = "--" if number == 0 else "-"
                colour = colours[number % len(colours)]
                axis.plot(*zip(*points, strict=True), style, marker="o", markersize=3, label=variant, color=colour)
        axis.set(xscale="log", yscale="log", title=names[value], xlabel=x)
        ticks = sorted({row[x] for row in rows})
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel(label)
    found = {text: line for axis in axes[0] for line, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    axes[0][-1].legend(
        found.values(), found.keys(), fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False
    )
    figure.savefig(path, dpi=150, bbox_inches="tight")
    pyplot.close(figure)


def plot_bars(
    rows: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    name: str,
    value: str,
    label: str,
    panel: str | None = None,
    line: float | None = None,
) -> None:
    """Draw a bar for each row, in their order.

    Args:
        rows: with the columns named below.
        path: the file of the picture; its suffix decides the format.
        name: the column with the bars' names.
        value: the column with their lengths.
        label: the label of the axis.
        panel: the column that tells panels apart; None for one panel.
        line: where to draw a line across, such as at a ratio of 1.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = list(dict.fromkeys(row[panel] if panel else None for row in rows))
    size = (4.5 + 3 * len(panels), 1.2 + 0.3 * len(rows) / len(panels))
    figure, axes = pyplot.subplots(1, len(panels), figsize=size, squeeze=False, layout="constrained")
    for axis, title in zip(axes[0], panels, strict=True):
        shown = [row for row in rows if panel is None or row[panel] == title]
        bar = axis.barh([row[name] for row in shown], [row[value] for row in shown])
        figures = [f"{row[value]:,.0f}" if row[value] >= 100 else f"{row[value]:.3g}" for row in shown]
        axis.bar_label(bar, figures, padding=2, fontsize=8)
        axis.invert_yaxis()
        axis.margins(x=0.15)
        axis.set(xlabel=label, title=None if panel is None else f"{panel} {title}")
        if line is not None:
            axis.axvline(line, color="black", linewidth=0.8)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
