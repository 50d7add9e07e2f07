"""Attention maps as one self-contained HTML page, pictures included."""

import math
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from xformer.inspection.attention_maps import EXACT, AttentionMap
from xformer.inspection.model_input import Axis

STYLE = """
:root { color-scheme: light }
body { margin: 0 auto; max-width: 90rem; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; color: #222 }
h1 { font-size: 1.5rem }
h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #ccc }
figure { margin: 1.5rem 0; overflow-x: auto }
figure img { max-width: 100%; height: auto; display: block; cursor: zoom-in }
input:checked + img { max-width: none; cursor: zoom-out }
p.warning { background: #fff8e6; border-left: 4px solid #e69f00; padding: .5rem 1rem }
figcaption, p.note { color: #555; font-size: .9rem }
pre, .tokens { white-space: pre-wrap; overflow-wrap: anywhere; background: #f5f5f5; padding: .5rem }
.tokens span { border: 1px solid #ddd; padding: 0 .2rem; margin: .1rem; display: inline-block; background: #fff }
"""
EXPLANATION = """<p class="note">A row is a query, a column a key: the weight with which the query takes the key's
value. The weights are measured, whether or not the variant writes them out: below each picture stands how far weights
times values are from what the layer gave. Colours go with the square root of a weight, on
one scale for all layers and heads of a section. Entropy is in nats, the mean over queries: 0 where one key is read,
log n where n keys are read evenly. Click a picture for its full size.</p>"""


class Picture(NamedTuple):
    """A layer's map, and the PNG of it."""

    attention: AttentionMap
    png: bytes


def attention_page(title: str, text: str, pictures: Sequence[Picture], axes: dict[str, tuple[Axis, Axis]]) -> str:
    """The page, as HTML.

    Args:
        title: whose maps they are.
        text: what the model read.
        pictures: slot by slot, layer by layer.
        axes: queries and keys, by slot.
    """
    slots = dict.fromkeys(picture.attention.slot for picture in pictures)
    parts = [_slot(slot, [each for each in pictures if each.attention.slot == slot], *axes[slot]) for slot in slots]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<pre>{escape(text)}</pre>
{EXPLANATION}
{"".join(parts)}</body>
</html>
"""


def _slot(slot: str, pictures: Sequence[Picture], queries: Axis, keys: Axis) -> str:
    variants = ", ".join(dict.fromkeys(picture.attention.variant for picture in pictures))
    sides = [queries] if queries == keys else [queries, keys]
    tokens = "".join(f'<p class="note">{escape(side.name)}</p>\n{_tokens(side)}\n' for side in sides)
    return (
        f"<section>\n<h2>{escape(slot)} ({escape(variants)})</h2>\n{_wrong(pictures)}{_signs(pictures)}"
        f"<details><summary>Tokens</summary>\n{tokens}</details>\n{''.join(map(_figure, pictures))}</section>\n"
    )


def _wrong(pictures: Sequence[Picture]) -> str:
    sentences = (sentence for picture in pictures if (sentence := inexactness_warning(picture.attention)))
    return "".join(f'<p class="warning">{escape(sentence)}</p>\n' for sentence in sentences)


def inexactness_warning(attention: AttentionMap) -> str | None:
    """A warning where weights times values are not the layer's output; None where they are."""
    if attention.exact:
        return None
    return (
        f"{attention.slot}, layer {attention.layer}: {attention.variant} is not weights times values, which are off by "
        f"{format_percent(attention.error)} of its output here. The picture shows what each key's value does when it "
        "stands alone, not what the layer reads."
    )


def format_percent(error: float) -> str:
    """An error in percent: `2e-05 %`, `319 %`, `more than can be told`."""
    if math.isinf(error):
        return "more than can be told"
    return f"{100 * error:.{1 if error < EXACT else 3}g} %"


def _signs(pictures: Sequence[Picture]) -> str:
    if all(bool((picture.attention.weights >= 0).all()) for picture in pictures):
        return ""
    return (
        '<p class="note">Some weights are negative (red) and rows need not sum to 1: keys and values are mixed over '
        "positions by learned projections first, so no entropy is given.</p>\n"
    )


def _tokens(axis: Axis) -> str:
    return f'<div class="tokens">{"".join(f"<span>{escape(token)}</span>" for token in axis.tokens)}</div>'


def _figure(picture: Picture) -> str:
    attention, data = picture.attention, b64encode(picture.png).decode()
    name = f"{attention.slot}, layer {attention.layer}, {attention.weights.shape[1]} heads"
    close = f"; weights times values are off by {format_percent(attention.error)} of the output"
    entropy = attention.entropy
    spread = "" if entropy is None else f"; entropy by head: {', '.join(f'{each:.2f}' for each in entropy)}"
    return (
        f'<figure>\n<label><input type="checkbox" hidden><img alt="{escape(name)}" '
        f'src="data:image/png;base64,{data}"></label>\n<figcaption>{escape(name + spread + close)}</figcaption>\n'
        "</figure>\n"
    )
