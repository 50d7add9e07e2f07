"""The figure of tuning: the metric of the trials by each tuned setting, with the choices marked."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xformer.config.identity import Value, override_value
from xformer.studies.bounded import bounded_interval
from xformer.studies.comparison import Comparison
from xformer.studies.figure_panels import GROUP, legend, looks, panels
from xformer.studies.figure_style import PlotStyle
from xformer.studies.metric import metric_bounds

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def tuning_figure(comparison: Comparison, style: PlotStyle) -> "Figure | None":
    """The metric of the trials by each tuned setting, the chosen one circled; None if nothing was tuned.

    Each tuned setting has axes of its own, in which the others have their chosen values. Settings that diverged are
    left out. Groups that are more than one panel holds are drawn in the colour of one.
    """
    from matplotlib.figure import Figure

    tuning = comparison.tuning
    tuned = {row.name: row.tuned for row in comparison.rows if row.tuned and row.tuned.chosen}
    if tuning is None or not tuned:
        return None
    label_of = {row.name: label for panel in panels(comparison) for label, row in panel.rows.items()}
    look = looks(panels(comparison))
    bounds = metric_bounds(tuning.metric.name)
    columns = min(style.columns, len(tuning.keys))
    rows = -(-len(tuning.keys) // columns)
    figure = Figure(figsize=(style.width, style.height * (1 if rows == 1 else 0.8 * rows)), layout="constrained")
    axes = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for extra in axes[len(tuning.keys) :]:
        extra.remove()
    axes = axes[: len(tuning.keys)]
    circle: dict[str, Any] = {
        "marker": "o", "markersize": 2.4 * style.marker, "markerfacecolor": "none", "markeredgewidth": style.line,
        "linestyle": "none",
    }  # fmt: skip
    for each, key in zip(axes, tuning.keys, strict=True):
        tried = dict.fromkeys(setting.values[key] for variant in tuned.values() for setting in variant.settings)
        place, logarithmic = _scale([*tried])
        for name, variant in tuned.items():
            assert variant.chosen is not None
            others = {**variant.chosen.values, key: None}
            along = [s for s in variant.settings if {**s.values, key: None} == others and s.mean is not None]
            scores = {place[s.values[key]]: [v for v in s.scores.values() if v is not None] for s in along}
            where = sorted(scores)
            means = [sum(scores[x]) / len(scores[x]) for x in where]
            found = [bounded_interval(scores[x], bounds) for x in where]
            colour = look[label_of[name]]["color"]
            each.plot(where, means, label=name, gid=GROUP, **look[label_of[name]])
            low = [interval.low if interval else mean for mean, interval in zip(means, found, strict=True)]
            high = [interval.high if interval else mean for mean, interval in zip(means, found, strict=True)]
            each.fill_between(where, low, high, color=colour, alpha=0.12, linewidth=0)
            each.plot([place[variant.chosen.values[key]]], [variant.chosen.mean], color=colour, **circle)
        if logarithmic:
            each.set_xscale("log")
        each.set_xticks([*place.values()], [override_value(value) for value in place])
        each.minorticks_off()
        each.set_xlabel(key)
        each.ticklabel_format(axis="y", useOffset=False)
    axes[0].plot([], [], color="#444444", label="chosen", **circle)
    axes[0].set_ylabel(f"{tuning.metric.name} of the trials")
    legend(figure, axes, style)
    return figure


def _scale(values: Sequence[Value]) -> tuple[dict[Value, float], bool]:
    """The place of each value on an axis, and whether that is logarithmic; names are placed in their order."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        return {value: float(index) for index, value in enumerate(values)}, False
    return {value: float(value) for value in sorted(numbers)}, min(numbers) > 0 and max(numbers) >= 4 * min(numbers)
