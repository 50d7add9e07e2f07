"""Variants of equal size: what `match=parameters` and `match=flops` ask for."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from xformer.config.validate import command_line_key

Measure = Literal["parameters", "flops"]


@dataclass(frozen=True, kw_only=True)
class Match:
    """What is to be equal, to what, and by which dimension.

    Attributes:
        measure: trainable `parameters`, or `flops` per token of a training step.
        to: what the reference has otherwise: the option of a group or slot.
        by: the key of the dimension that is adjusted.
        was: the dimension as it was asked for; None before it is adjusted.
    """

    measure: Measure
    to: dict[str, str]
    by: str
    was: Annotated[int, Ge(1)] | None

    @property
    def reference(self) -> str:
        """The reference as the command line spells it."""
        return " ".join(f"{command_line_key(key)}={option}" for key, option in self.to.items())
