"""Trivial baselines as horizontal lines of a figure."""

from collections.abc import Sequence
from typing import Any

from xformer.studies.comparison import ComparisonRow
from xformer.studies.table import three_digits

_MOST, _STRETCH = 4, 2.0
DASHES = ((0, (1, 1.5)), (0, (1, 3)), (0, (4, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))


def trivial_lines(axes: Any, rows: Sequence[ComparisonRow], metric: str) -> None:
    """Draw the trivial baselines of some groups, with their names and values in the legend.

    They are measured on the test part; a figure of the validation part shows them too. One that would stretch the axis
    to more than three times what the data take is named in the legend alone, as beyond the axis.
    """
    scores = trivial_baselines(rows, metric)
    if not scores or len(scores) > _MOST:
        return
    low, high = axes.get_ylim()
    for (name, value), dashes in zip(scores.items(), DASHES, strict=False):
        label, look = f"{name} ({three_digits(value)})", {"color": "#777777", "linestyle": dashes, "zorder": 0}
        away = max(low - value, value - high)
        if away > _STRETCH * (high - low):
            axes.plot([], [], label=f"{label}: {'below' if value < low else 'above'} the axis", **look)
        else:
            axes.axhline(value, label=label, **look)


def trivial_baselines(rows: Sequence[ComparisonRow], metric: str) -> dict[str, float]:
    """The values of the trivial baselines in a metric, on whatever part; a name that has several has each its value."""
    summaries = [run.summary for row in rows for run in row.group.runs]
    found = dict.fromkeys(
        (name, value)
        for summary in summaries
        if summary.baseline_metric is not None and _stem(summary.baseline_metric) == _stem(metric)
        for name, value in summary.trivial_baselines.items()
        if value is not None
    )
    names = [name for name, _ in found]
    return {
        name if names.count(name) == 1 else f"{name}, {index + 1}": value for index, (name, value) in enumerate(found)
    }


def _stem(name: str) -> str:
    return name.rpartition("/")[2].partition("@")[0]
