"""The whole of what goes with what, from the classes' declarations, as the Markdown that stands in the README."""

from xformer.attention.base import Capable
from xformer.config.compatibility import classes
from xformer.core.capability import Capability
from xformer.position.base import Position

SITUATIONS = {
    "causal": Capability.CAUSAL,
    "bidirectional": Capability.BIDIRECTIONAL,
    "cross": Capability.CROSS,
    "padding": Capability.PADDING,
    "incremental": Capability.INCREMENTAL,
    "longer": Capability.VARIABLE_LENGTH,
}


def markdown() -> str:
    """Two tables, attention by situation and attention by position scheme, and a note for every no."""
    attentions: dict[str, type[Capable]] = dict(classes("attention"))
    positions: dict[str, type[Position]] = dict(classes("position"))
    notes: dict[str, str] = {}
    situations = _table("attention", attentions, SITUATIONS, notes)
    schemes = _table("attention", attentions, {name: found.needs for name, found in positions.items()}, notes)
    legend = (
        "`causal`: decoders. `bidirectional`: encoders. `cross`: from one sequence to another. `incremental`: decoding "
        "from a state, token by token. `longer`: sequences longer than the model was built for."
    )
    return "\n".join([situations, "", legend, "", schemes, "", *(f"{sign} {text}  " for text, sign in notes.items())])


def _table(
    corner: str, attentions: dict[str, type[Capable]], columns: dict[str, Capability], notes: dict[str, str]
) -> str:
    lines = [f"| {corner} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, attention in attentions.items():
        cells = (_cell(name, attention, needed, notes) for needed in columns.values())
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(name: str, attention: type[Capable], needed: Capability, notes: dict[str, str]) -> str:
    missing = needed & ~attention.provides
    if not missing:
        return "yes"
    signs = []
    for capability in missing:
        note = f"`{name}`, {str(capability.name).lower()}: {attention.reasons[capability]}"
        signs.append(notes.setdefault(note, f"[{len(notes) + 1}]"))
    return "no " + "".join(signs)
