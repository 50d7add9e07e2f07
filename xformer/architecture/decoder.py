"""The decoder-only architecture: every token reads itself and those before it (GPT)."""

from typing import ClassVar

from xformer.architecture.slot import Slot
from xformer.architecture.stack import Stack
from xformer.core.capability import Capability


class Decoder(Stack):
    """Decoder-only architecture: a causal stack."""

    causal: ClassVar[bool] = True
    slots: ClassVar[dict[str, Slot]] = {"attention": Slot("self", Capability.CAUSAL)}
