"""How figures look: their width, the size of their text, and where the legend stands."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

# Okabe and Ito's colours, told apart by the colour-blind, their yellow (unreadable on white) replaced by two of Tol's;
# markers tell them apart in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255")
MARKERS = "osD^vPX<"


@dataclass(frozen=True)
class PlotStyle:
    """The look of a figure.

    Attributes:
        width: in inches.
        height: of a panel, in inches.
        font: the size of its text, in points.
        line: the width of its lines, in points.
        marker: the size of its markers, in points.
        columns: how many panels stand beside each other at most.
        legend: beside the panels, or below them; never on them.
    """

    width: float
    height: float
    font: float
    line: float = 1.5
    marker: float = 4.0
    columns: int = 2
    legend: Literal["right", "below"] = "below"

    @property
    def text_line(self) -> float:
        """The height of a line of text, in inches."""
        return 1.55 * self.font / 72

    def characters(self, share: float = 1.0) -> int:
        """How many characters of usual width fit a share of the figure's width."""
        return int(share * self.width * 72 / (0.58 * self.font))


RECORD = PlotStyle(5.6, 3.4, 10.0)
"""Of a study's folder."""
WIDE = PlotStyle(11.0, 4.2, 11.0, columns=3, legend="right")
"""Of a page in a wide window."""
NARROW = PlotStyle(3.7, 2.8, 10.0, columns=1)
"""Of a page on a phone."""
GALLERY = PlotStyle(4.6, 2.6, 10.0, columns=1)
"""Of the page over all studies, which is read on a phone too."""
PAPER = {
    "column": PlotStyle(3.25, 2.1, 8.0, line=1.0, marker=3.0, columns=1),
    "page": PlotStyle(6.75, 2.3, 9.0, line=1.2, marker=3.5, columns=3),
}
"""Of a paper: for one column (ICML, ACL: 3.25 inches) and for two (6.75 inches), to be included at its own size."""


@contextmanager
def drawing(style: PlotStyle, further: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Matplotlib's settings for a style, and no mathematics in names; a character without a font is a box, silently."""
    import matplotlib as mpl

    settings: dict[Any, Any] = {
        "svg.fonttype": "none", "pdf.fonttype": 42, "font.size": style.font, "font.family": "sans-serif",
        "axes.titlesize": style.font, "axes.labelsize": style.font, "legend.fontsize": style.font,
        "xtick.labelsize": 0.9 * style.font, "ytick.labelsize": 0.9 * style.font, "axes.spines.top": False,
        "axes.spines.right": False, "axes.grid": True, "grid.color": "#e5e5e5", "grid.linewidth": style.line / 2,
        "axes.linewidth": style.line / 2, "lines.linewidth": style.line, "lines.markersize": style.marker,
        "legend.frameon": False, "legend.handlelength": 1.8, "text.parse_math": False,
    }  # fmt: skip
    with mpl.rc_context(settings | dict(further or {})), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield
