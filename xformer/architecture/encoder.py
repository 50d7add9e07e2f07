"""The encoder: every token reads every other (BERT; Vaswani et al. 2017, the left half of figure 1)."""

from typing import ClassVar

from xformer.architecture.slot import Slot
from xformer.architecture.stack import Stack


class Encoder(Stack):
    """Encoder architecture: a bidirectional stack."""

    causal: ClassVar[bool] = False
    slots: ClassVar[dict[str, Slot]] = {"attention": Slot("self")}
