"""Slots: the places in an architecture that an attention variant fills."""

from dataclasses import dataclass

from xformer.core.capability import Capability


@dataclass(frozen=True)
class Slot:
    """A slot of an architecture, and the capabilities it requires of its attention.

    Attributes:
        name: of the place, in summaries.
        needs: what the architecture itself needs here: CAUSAL, CROSS or BIDIRECTIONAL.
        position: the configuration's key of the position scheme that acts here; None where none does.
        pads: whether the keys are padded where the data pads.
    """

    name: str
    needs: Capability = Capability.BIDIRECTIONAL
    position: str | None = "position"
    pads: bool = True
