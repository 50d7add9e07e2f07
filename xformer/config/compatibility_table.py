"""The whole of what goes with what, from the classes' declarations, as the Markdown that stands in the README."""

from xformer.attention.base import Attention
from xformer.config.compatibility import option_classes
from xformer.core.capability import Capability
from xformer.position.base import Position

SITUATIONS = {
    "causal": Capability.CAUSAL,
    "cross": Capability.CROSS,
    "padding": Capability.PADDING,
    "incremental": Capability.INCREMENTAL,
    "longer": Capability.VARIABLE_LENGTH,
}


def compatibility_markdown() -> str:
    """Two tables, attention by situation and attention by position scheme, and a note for every no."""
    attentions: dict[str, type[Attention]] = dict(option_classes("attention"))
    positions: dict[str, type[Position]] = dict(option_classes("position"))
    notes: dict[str, str] = {}
    situations = _table("attention", attentions, SITUATIONS, notes)
    schemes = _table("attention", attentions, {name: found.needs for name, found in positions.items()}, notes)
    legend = (
        "`longer`: sequences longer than the model was built for. `incremental`: decoding from a state, token by token."
    )
    return "\n".join([situations, "", legend, "", schemes, "", *(f"{sign} {text}  " for text, sign in notes.items())])


def _table(
    corner: str, attentions: dict[str, type[Attention]], columns: dict[str, Capability], notes: dict[str, str]
) -> str:
    lines = [f"| {corner} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, attention in attentions.items():
        cells = (_cell(name, attention, needed, notes) for needed in columns.values())
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(name: str, attention: type[Attention], needed: Capability, notes: dict[str, str]) -> str:
    missing = needed & ~attention.provides
    if not missing:
        return "yes"
    signs = []
    for capability in missing:
        footnote = f"`{name}`, {str(capability.name).lower()}: {attention.reasons[capability]}"
        signs.append(notes.setdefault(footnote, f"[{len(notes) + 1}]"))
    return "no " + "".join(signs)
