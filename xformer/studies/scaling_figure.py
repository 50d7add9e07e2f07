"""The figure of a sweep over sizes: the losses with their power laws, and the differences with their bands."""

from typing import TYPE_CHECKING, Any

import numpy as np

from xformer.studies.comparison import Comparison
from xformer.studies.figure_panels import GROUP, MOST, SEED, legend
from xformer.studies.figure_style import COLOURS, MARKERS, PlotStyle
from xformer.studies.size_sweep import UNITS, SizeSweep, size_sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def scaling_figure(comparison: Comparison, style: PlotStyle, seeds: bool = False) -> "Figure | None":
    """Losses and differences by size; None where no setting was run at three sizes.

    Curves are dotted, and bands paler, beyond the largest size, and end where nothing is said any more. Of more than
    eight settings each has a panel with its difference alone.
    """
    from matplotlib.figure import Figure

    sweep = size_sweep(comparison)
    if sweep is None or (len(sweep.losses) > MOST and not sweep.differences):
        return None
    many = len(sweep.losses) > MOST
    names = list(sweep.differences)
    count = len(names) if many else 1 + bool(names)
    columns = min(style.columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(style.width, style.height * (1 if rows == 1 else 0.8 * rows)), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for extra in axes[count:]:
        extra.remove()
    axes = axes[:count]
    if many:
        for each, name in zip(axes, names, strict=True):
            each.set_title(name, loc="left")
            _differences(each, sweep, [name], comparison, style)
    else:
        _losses(axes[0], sweep, comparison, style, seeds)
        if names:
            _differences(axes[1], sweep, names, comparison, style)
    for each in axes:
        _scale(each, comparison, style)
    legend(figure, axes, style)
    return figure


def _losses(axes: Any, sweep: SizeSweep, comparison: Comparison, style: PlotStyle, seeds: bool) -> None:
    for name, each in sweep.losses.items():
        look = _look(sweep, name)
        axes.plot(each.scales, each.losses.mean(axis=1), label=name, gid=GROUP, linestyle="none", **look)
        if seeds:
            for index, line in enumerate(each.losses.T):
                axes.plot(
                    each.scales, line, gid=SEED, linestyle="none", alpha=0.5, label=f"_{name} run {index}", **look
                )
        curve, color = each.curve(), look["color"]
        inside = np.geomspace(each.scales.min(), each.scales.max(), 50)
        axes.plot(inside, curve.at(inside), color=color)
        end = sweep.differences[name].scales[-1] if name in sweep.differences else each.scales.max()
        if end > each.scales.max():
            outside = np.geomspace(each.scales.max(), end, 20)
            axes.plot(outside, curve.at(outside), color=color, linestyle=":")
    axes.set_ylabel(comparison.metric.name)


def _differences(axes: Any, sweep: SizeSweep, names: list[str], comparison: Comparison, style: PlotStyle) -> None:
    against = list(dict.fromkeys(sweep.baselines[name] for name in names))
    zero = f"no difference to {against[0]}" if len(against) == 1 else "no difference to the baseline"
    axes.axhline(0, color="#555555", linewidth=style.line / 2, label=zero)
    for name in names:
        each, color = sweep.differences[name], _look(sweep, name)["color"]
        for part, alpha, line in ((each.scales <= each.largest, 0.2, "-"), (each.scales >= each.largest, 0.08, ":")):
            axes.plot(each.scales[part], each.means[part], color=color, linestyle=line)
            axes.fill_between(each.scales[part], each.low[part], each.high[part], color=color, alpha=alpha, linewidth=0)
    ends = {sweep.differences[name].largest for name in names}
    axes.axvline(max(ends), color="#555555", linestyle="-.", linewidth=style.line / 2, label="largest size measured")
    axes.set_ylabel("difference")


def _look(sweep: SizeSweep, name: str) -> dict[str, Any]:
    index = list(sweep.losses).index(name) if len(sweep.losses) <= MOST else 0
    return {"color": COLOURS[index], "marker": MARKERS[index]}


def _scale(axes: Any, comparison: Comparison, style: PlotStyle) -> None:
    """A logarithmic axis whose ticks are few enough to be read, and never the same twice."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    decades = np.log10(high / low)
    subs = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_xlabel(UNITS[comparison.scale])
