"""The figure of a table's means: a row for each group, its seeds, its mean with the interval, the trivial baselines."""

from typing import TYPE_CHECKING

from xformer.studies.comparison import Comparison
from xformer.studies.figure_panels import GROUP, SEED, empty_figure, legend, looks, panels
from xformer.studies.figure_style import PlotStyle, drawing
from xformer.studies.trivial_lines import DASHES, trivial_baselines

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def means_figure(comparison: Comparison, style: PlotStyle) -> "Figure":
    """The means of a comparison with their 95 % intervals, and the value of each seed; the baseline in italics."""
    with drawing(style):
        found = panels(comparison, split=True)
        figure, axes = empty_figure(style, [panel.title for panel in found])
        most = max(len(panel.rows) for panel in found)
        figure.set_figheight(len(found) * (style.text_line * (1.2 * most + 1.5)) + 2 * style.text_line)
        colours = looks(found)
        for each, panel in zip(axes, found, strict=True):
            for place, (label, row) in enumerate(panel.rows.items()):
                color = colours[label]["color"]
                each.plot(list(row.values.values()), [place] * len(row.values), "o", color=color, alpha=0.35, gid=SEED,
                          markersize=style.marker, label=f"_{label}")  # fmt: skip
                each.plot([row.mean], [place], "|", color=color, gid=GROUP, label=f"_{label}",
                          markersize=3 * style.marker, markeredgewidth=1.5 * style.line)  # fmt: skip
                if row.interval:
                    each.plot([row.interval.low, row.interval.high], [place] * 2, color=color)
            for (name, value), dashes in zip(trivial_baselines([*panel.rows.values()], comparison.metric.name).items(),
                                             DASHES, strict=False):  # fmt: skip
                each.axvline(value, color="#555555", linestyle=dashes, zorder=0, label=f"{name} ({value:.3g})")
            each.set_yticks(range(len(panel.rows)), list(panel.rows))
            each.set_ylim(most - 0.5, -0.5)
            each.grid(visible=False, axis="y")
            for tick, row in zip(each.get_yticklabels(), panel.rows.values(), strict=True):
                tick.set_style("italic" if row.verdict == "baseline" else "normal")
        axes[-1].set_xlabel(comparison.metric.name)
        legend(figure, axes, style)
    return figure
