"""Attention and influence maps as pictures: one per layer, with a panel per head, or a single one for influence."""

import io
import warnings
from collections.abc import Sequence
from math import ceil, sqrt
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes as Panel
from matplotlib.cm import ScalarMappable
from matplotlib.colors import FuncNorm
from matplotlib.figure import Figure

from xformer.inspection.attention_maps import LayerMap
from xformer.inspection.influence_maps import InfluenceMap
from xformer.inspection.model_input import Axis

PANEL, LARGEST_CELL, LABEL = 5.2, 0.3, 0.13
"""Inches: the longer side of a large panel, a cell of a small one, and a label, so that 40 labels fit."""
NOT_WEIGHTS = "influence, not weights"
LONGEST_LABEL = 12
"""The maximum number of characters of a label."""
_STYLE: Any = {"text.parse_math": False, "font.size": 8, "axes.titlesize": 9, "savefig.dpi": 110}


class Scale:
    """The colour scale of all layers and heads of a slot, in which equal colours mean equal values.

    Colours show the square root of a weight, so that weights spread over 40 keys stay visible beside a weight of 1.
    Negative weights are red.

    Args:
        maps: the maps of the slot, all of weights or all of influence.
    """

    def __init__(self, maps: Sequence[LayerMap]) -> None:
        top = max(float(each.values.abs().max()) for each in maps) or 1.0
        signed = any(bool((each.values < 0).any()) for each in maps)
        roots = (lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda x: np.sign(x) * np.square(x))
        self.norm = FuncNorm(roots, vmin=-top if signed else 0.0, vmax=top)
        self.colours = "RdBu" if signed else "Blues"
        quarters = top * np.linspace(0, 1, 5) ** 2
        self.ticks = [*(-quarters[:0:-1] if signed else []), *quarters]


def draw_attention(attention: LayerMap, queries: Axis, keys: Axis, scale: Scale) -> bytes:
    """A layer's heads as a PNG, for the first sequence of a batch."""
    weights = attention.values[0].numpy()
    influence = isinstance(attention, InfluenceMap)
    columns = ceil(sqrt(len(weights)))
    rows = ceil(len(weights) / columns)
    cell = min(LARGEST_CELL, PANEL / max(weights.shape[1:]))
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands for it
        figure = Figure(_size(rows, columns, cell, queries.tokens, keys.tokens), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for head, panel in enumerate(panels[: len(weights)]):
            panel.imshow(weights[head], norm=scale.norm, cmap=scale.colours, aspect="equal")
            panel.set_title(_panel_title(attention, head))
            _label(panel, cell, queries.tokens, keys.tokens)
        for panel in panels[len(weights) :]:
            panel.set_axis_off()
        title = f"{attention.slot} ({attention.variant}), layer {attention.layer}"
        figure.suptitle(f"{title}\n{NOT_WEIGHTS}" if influence else title)
        columns_are, rows_are, what = (
            ("inputs x", "outputs y", "influence") if influence else ("keys", "queries", "weight")
        )
        figure.supxlabel(f"{keys.name} ({columns_are})", fontsize=8)
        figure.supylabel(f"{queries.name} ({rows_are})", fontsize=8)
        shades = ScalarMappable(scale.norm, scale.colours)
        label = f"{what} (colours by its root)"
        figure.colorbar(shades, ax=list(panels), aspect=30, label=label, format="%.3g", ticks=scale.ticks)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def _panel_title(attention: LayerMap, head: int) -> str:
    if isinstance(attention, InfluenceMap):
        return "all heads"
    entropy = attention.entropy
    return f"head {head}" + ("" if entropy is None else f"   entropy {entropy[head]:.2f}")


def _label(panel: Panel, cell: float, queries: Sequence[str], keys: Sequence[str]) -> None:
    """Label all tokens or, if there is not enough room, every n-th token with its index."""
    step = ceil(LABEL / cell)

    def names(tokens: Sequence[str]) -> list[str]:
        chosen = [_cut(token) for token in tokens[::step]]
        return chosen if step == 1 else [f"{token} {index * step}" for index, token in enumerate(chosen)]

    turned = 90 if max(map(len, names(keys))) > 2 else 0
    panel.set_xticks(range(0, len(keys), step), names(keys), rotation=turned)
    panel.set_yticks(range(0, len(queries), step), names(queries))
    panel.tick_params(labelsize=7, length=2, pad=1.5)


def _cut(token: str) -> str:
    return token if len(token) <= LONGEST_LABEL else token[: LONGEST_LABEL - 1] + "…"


def _size(rows: int, columns: int, cell: float, queries: Sequence[str], keys: Sequence[str]) -> tuple[float, float]:
    """The size in inches of a figure whose panels have room for their labels."""
    left, below = (0.07 * max(len(_cut(token)) for token in axis) + 0.25 for axis in (queries, keys))
    width = max(cell * len(keys), 1.2) + left
    height = max(cell * len(queries), 0.3) + below + 0.2
    return columns * width + 1.2, max(rows * height + 0.7, 2.2)
