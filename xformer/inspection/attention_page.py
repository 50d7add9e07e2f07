"""Attention and influence maps as one self-contained HTML page, pictures included."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from xformer.inspection.attention_maps import EXACT, AttentionMap, LayerMap, Linearity
from xformer.inspection.draw_attention import NOT_WEIGHTS
from xformer.inspection.influence_maps import InfluenceMap
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
EXPLANATION = """<p class="note">Rows are queries, columns are keys; each cell is the weight of the key's value for the
query. The weights are measured, whether or not the variant computes them; the caption of each picture has the error of
weights times values against the layer's output. Colours show the square root of a weight, on one scale for all layers
and heads of a section. Entropy is in nats, averaged over queries: 0 if each query attends to one key, log n if it
attends to n keys equally. Click a picture for its full size.</p>
"""
INFLUENCE_EXPLANATION = """<p class="note">Influence, not weights: rows are outputs t, columns are inputs s, and each
cell is |d y<sub>t</sub> / d x<sub>s</sub>|, the Frobenius norm of a block of the layer's Jacobian, before the residual
is added. It measures how much the output changes with the input. Rows are not normalised, and values cannot be compared
with weights. Colours show its square root, on a separate scale.</p>
"""


class Picture(NamedTuple):
    """A layer's map and its PNG."""

    attention: LayerMap
    png: bytes


def attention_page(title: str, text: str, pictures: Sequence[Picture], axes: dict[str, tuple[Axis, Axis]]) -> str:
    """The page as HTML.

    Args:
        title: the title of the page.
        text: the text that the model read.
        pictures: slot by slot, layer by layer.
        axes: queries and keys, by slot.
    """
    slots = dict.fromkeys(picture.attention.slot for picture in pictures)
    maps = [picture.attention for picture in pictures]
    kinds = {AttentionMap: EXPLANATION, InfluenceMap: INFLUENCE_EXPLANATION}
    explanations = [text for kind, text in kinds.items() if any(isinstance(each, kind) for each in maps)]
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
{"".join(explanations)}{"".join(parts)}</body>
</html>
"""


def _slot(slot: str, pictures: Sequence[Picture], queries: Axis, keys: Axis) -> str:
    variants = ", ".join(dict.fromkeys(picture.attention.variant for picture in pictures))
    maps = [picture.attention for picture in pictures]
    sides = [queries] if queries == keys else [queries, keys]
    tokens = "".join(f'<p class="note">{escape(side.name)}</p>\n{_tokens(side)}\n' for side in sides)
    return (
        f"<section>\n<h2>{escape(slot)} ({escape(variants)})</h2>\n{_warnings(maps)}{_signs(pictures)}"
        f"<details><summary>Tokens</summary>\n{tokens}</details>\n{''.join(map(_figure, pictures))}</section>\n"
    )


def _warnings(maps: Sequence[LayerMap]) -> str:
    return "".join(f'<p class="warning">{escape(sentence)}</p>\n' for sentence in influence_warnings(maps))


def influence_warnings(maps: Sequence[LayerMap]) -> list[str]:
    """A sentence for the layers of each slot and variant that says why influence is drawn instead of weights."""
    layers: dict[tuple[str, str, bool], list[InfluenceMap]] = {}
    for each in maps:
        if isinstance(each, InfluenceMap):
            layers.setdefault((each.slot, each.variant, each.weights_error is None), []).append(each)
    return [_influence_warning(some) for some in layers.values()]


def _influence_warning(layers: Sequence[InfluenceMap]) -> str:
    first, several = layers[0], len(layers) > 1
    place = f"{first.slot}, layer{'s' * several} {', '.join(str(each.layer) for each in layers)}"
    errors = [each.weights_error for each in layers if each.weights_error is not None]
    if errors:
        off = " and ".join(map(format_percent, errors))
        why = f"{first.variant} is not linear in the values: weights times values differ from its output by {off}"
    else:
        why = f"{first.variant} owns its projections and state, so it has no weights that multiply values"
    return f"{place}: {why}. The map shows {NOT_WEIGHTS}."


def format_percent(error: float) -> str:
    """An error in percent: `2e-05 %`, `319 %`, `inf %`."""
    return f"{100 * error:.{1 if error < EXACT else 3}g} %"


def _signs(pictures: Sequence[Picture]) -> str:
    if all(bool((picture.attention.values >= 0).all()) for picture in pictures):
        return ""
    return (
        '<p class="note">Some weights are negative (red) and rows need not sum to 1, because learned projections first '
        "mix keys and values over positions; therefore no entropy is shown.</p>\n"
    )


def _tokens(axis: Axis) -> str:
    return f'<div class="tokens">{"".join(f"<span>{escape(token)}</span>" for token in axis.tokens)}</div>'


def _figure(picture: Picture) -> str:
    found, data = picture.attention, b64encode(picture.png).decode()
    caption = _influence_caption(found) if isinstance(found, InfluenceMap) else _caption(found)
    name = f"{found.slot}, layer {found.layer}"
    return (
        f'<figure>\n<label><input type="checkbox" hidden><img alt="{escape(name)}" '
        f'src="data:image/png;base64,{data}"></label>\n<figcaption>{escape(f"{name}, {caption}")}</figcaption>\n'
        "</figure>\n"
    )


def _caption(attention: AttentionMap) -> str:
    entropy = attention.entropy
    spread = "" if entropy is None else f"; entropy by head: {', '.join(f'{each:.2f}' for each in entropy)}"
    constant, close = "", f"; weights times values differ from the output by {format_percent(attention.error)}"
    if attention.linearity == Linearity.CONSTANT:
        constant = (
            f", after adding a constant of {format_percent(attention.constant)} of it, which does not depend on the "
            "values and is not drawn"
        )
    return f"{attention.weights.shape[1]} heads{spread}{close}{constant}"


def _influence_caption(found: InfluenceMap) -> str:
    if not found.error:
        return f"{NOT_WEIGHTS}; exact"
    return f"{NOT_WEIGHTS}; measured with random probes, standard error {format_percent(found.error)} of the map"
