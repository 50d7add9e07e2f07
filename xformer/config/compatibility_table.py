"""The compatibility tables in Markdown, from the classes' declarations: what README shows."""

from dataclasses import dataclass, field

from xformer.attention.base import Capable
from xformer.config.compatibility import option_classes
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


@dataclass
class Footnote:
    """A footnote: why a combination does not work, and for which variants and capabilities."""

    number: int
    variants: dict[str, None] = field(default_factory=dict)  # in the order of the table, each once
    capabilities: dict[str, None] = field(default_factory=dict)

    def text(self, sentence: str) -> str:
        """The footnote as Markdown."""
        of = ", ".join([*(f"`{name}`" for name in self.variants), *self.capabilities])
        return f"[{self.number}] {of}: {sentence}  "


def compatibility_markdown() -> str:
    """Two tables, attention by situation and by position scheme, with a footnote for every no.

    Variants with equal columns share a row, and equal explanations share a footnote.
    """
    attentions: dict[str, type[Capable]] = dict(option_classes("attention"))
    positions: dict[str, type[Position]] = dict(option_classes("position"))
    notes: dict[str, Footnote] = {}
    situations = _table("attention", attentions, SITUATIONS, notes)
    schemes = _table("attention", attentions, {name: found.needs for name, found in positions.items()}, notes)
    legend = (
        "`causal`: decoders. `bidirectional`: encoders. `cross`: from one sequence to another. `incremental`: decoding "
        "from a state, token by token. `longer`: sequences longer than the model was built for."
    )
    return "\n".join([situations, "", legend, "", schemes, "", *(n.text(sentence) for sentence, n in notes.items())])


def _table(
    corner: str, attentions: dict[str, type[Capable]], columns: dict[str, Capability], notes: dict[str, Footnote]
) -> str:
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, attention in attentions.items():
        cells = tuple(_cell(name, attention, needed, notes) for needed in columns.values())
        rows.setdefault(cells, []).append(f"`{name}`")
    lines = [f"| {corner} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    return "\n".join(
        [*lines, *(f"| {', '.join(names)} | " + " | ".join(cells) + " |" for cells, names in rows.items())]
    )


def _cell(name: str, attention: type[Capable], needed: Capability, notes: dict[str, Footnote]) -> str:
    missing = needed & ~attention.provides
    if not missing:
        return "yes"
    signs = []
    for capability in missing:
        footnote = notes.setdefault(attention.reasons[capability], Footnote(len(notes) + 1))
        footnote.variants[name] = footnote.capabilities[str(capability.name).lower()] = None
        signs.append(f"[{footnote.number}]")
    return "no " + "".join(signs)
