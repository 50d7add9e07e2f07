"""Settings of `match=parameters` and `match=flops`, which give variants equal size."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from xformer.config.groups import command_line_key

Measure = Literal["parameters", "flops"]
UNITS = {"parameters": "parameters", "flops": "FLOPs per token"}


@dataclass(frozen=True, kw_only=True)
class Match:
    """Settings of size matching: what to make equal, to which reference, and by which dimension.

    Attributes:
        measure: trainable `parameters`, or `flops` per token of a training step.
        to: the choices of the reference that differ, by group or slot.
        by: the key of the dimension to adjust.
        was: the dimension before the adjustment; None until it is adjusted.
    """

    measure: Measure
    to: dict[str, str]
    by: str
    was: Annotated[int, Ge(1)] | None

    @property
    def reference(self) -> str:
        """The reference in command-line form."""
        return " ".join(f"{command_line_key(key)}={option}" for key, option in self.to.items())


@dataclass(frozen=True)
class Matched:
    """The result of matching.

    Attributes:
        measure: the matched quantity.
        to: the reference's choices.
        by: the key of the dimension.
        was: the dimension before the adjustment.
        now: the dimension after it.
        reference: the reference's parameters, or FLOPs per token.
        reached: those of this model.
        difference: the remaining difference, in percent of the reference.
    """

    measure: str
    to: str
    by: str
    was: int
    now: int
    reference: float
    reached: float
    difference: float

    def __str__(self) -> str:
        return (
            f"Matched to {self.to}: {self.by} {self.was} -> {self.now} gives {self.reached:,.0f} "
            f"{UNITS[self.measure]}, against {self.reference:,.0f} ({self.difference:+.2f} %)."
        )
