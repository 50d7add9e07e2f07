"""The panels of a figure: at most eight groups in one, each with a colour that it has in all of them."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xformer.studies.comparison import Comparison, ComparisonRow
from xformer.studies.figure_style import COLOURS, MARKERS, PlotStyle
from xformer.studies.grouping import group_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = len(COLOURS)
GROUP = "group"
"""The id of what is drawn of a group, in an SVG: a line's name is its label."""
SEED = "seed"
"""The id of what is drawn of one run."""


@dataclass(frozen=True)
class Panel:
    """Some groups of a comparison, with axes of their own.

    Attributes:
        title: what they have in common; empty where all groups are in one panel.
        rows: by label.
        others: groups of the other panels, to be drawn in grey, where each panel has one group.
    """

    title: str
    rows: Mapping[str, ComparisonRow]
    others: Sequence[ComparisonRow] = ()


def panels(comparison: Comparison, split: bool = False) -> list[Panel]:
    """The panels of a comparison: one for up to eight groups.

    More are split by a setting, so that each panel has up to eight groups that are equal in it: one that is not the
    baseline's where there is one, and of these the one with the fewest panels. Where no setting does, each group has a
    panel, before the others in grey.

    Args:
        comparison: its rows are the groups.
        split: split fewer groups too, where a setting that is not the baseline's does.
    """
    rows, named = list(comparison.rows), comparison.differ.named
    splits: list[tuple[bool, int, list[Panel]]] = []
    for key in named if len(named) > 1 else ():
        rest = [other for other in named if other != key]
        parts: dict[str, dict[str, ComparisonRow]] = {}
        for row in rows:
            parts.setdefault(row.group.get(key), {})[group_name(row.group, rest)] = row
        labels = {label for part in parts.values() for label in part}
        if len(labels) <= MOST and sum(map(len, parts.values())) == len(rows):
            of_baseline = f" {key}=" in f" {comparison.baseline}"
            splits.append((of_baseline, len(parts), [Panel(f"{key}={value}", part) for value, part in parts.items()]))
    of_baseline, _, best = min(splits, key=lambda found: found[:2], default=(True, 0, []))
    if len(rows) <= MOST and not (split and best and not of_baseline):
        return [Panel("", {row.name: row for row in rows})]
    return best or [Panel(row.name, {row.name: row}, [other for other in rows if other is not row]) for row in rows]


def looks(found: Sequence[Panel]) -> dict[str, dict[str, Any]]:
    """The colour and the marker of each label, the same in all panels."""
    labels = list(dict.fromkeys(label for panel in found for label in panel.rows))
    return {
        label: {"color": COLOURS[index % MOST], "marker": MARKERS[index % MOST]}
        if len(labels) <= MOST
        else {"color": COLOURS[0], "marker": MARKERS[0]}
        for index, label in enumerate(labels)
    }


def empty_figure(style: PlotStyle, titles: Sequence[str]) -> "tuple[Figure, list[Any]]":
    """A figure and its axes, one for each title, with common scales."""
    from matplotlib.figure import Figure

    columns = min(style.columns, len(titles))
    rows = -(-len(titles) // columns)
    height = style.height if rows == 1 else style.height * 0.8 * rows
    figure = Figure(figsize=(style.width, height), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    axes = list(grid.flat)
    for extra in axes[len(titles) :]:
        extra.remove()
    for each, title in zip(axes, titles, strict=False):
        if title:
            each.set_title(title, loc="left")
    for index in range(len(titles) - columns, len(titles)):
        axes[index].tick_params(labelbottom=True)
    return figure, axes[: len(titles)]


def finish(figure: "Figure", axes: Sequence[Any], style: PlotStyle, x: str, y: str) -> None:
    """Label the axes, and put the legend beside the panels or below them, for which the figure grows."""
    columns = min(style.columns, len(axes))
    for index, each in enumerate(axes):
        if index + columns >= len(axes):
            each.set_xlabel(x)
        if index % columns == 0:
            each.set_ylabel(y)
    legend(figure, axes, style)


def legend(figure: "Figure", axes: Sequence[Any], style: PlotStyle) -> None:
    """The legend of all axes, each label once, outside of them; groups come before reference lines."""
    handles: dict[str, Any] = {}
    for each in axes:
        for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if not handles:
        return
    ordered = dict(sorted(handles.items(), key=lambda item: not _is_of_group(item[1])))
    longest = max(map(_inches, ordered, itertools.repeat(style.font))) + 4 * style.font / 72  # with its handle
    if style.legend == "right" and longest <= 0.3 * style.width:
        figure.legend(ordered.values(), ordered.keys(), loc="outside right upper")
        return
    columns = max(1, min(len(ordered), int(style.width / (longest + style.font / 72))))
    lines = -(-len(ordered) // columns)
    figure.set_figheight(figure.get_figheight() + style.text_line * lines)
    figure.legend(ordered.values(), ordered.keys(), loc="outside lower left", ncols=columns, columnspacing=1.0)


def _is_of_group(handle: Any) -> bool:
    return hasattr(handle, "has_yerr") or handle.get_gid() == GROUP


def _inches(text: str, points: float) -> float:
    """The width of a text."""
    from matplotlib.textpath import TextPath

    return float(TextPath((0, 0), text, size=points, usetex=False).get_extents().width) / 72
