"""The decoder-only architecture: every token reads itself and those before it (GPT)."""

from typing import ClassVar

from xformer.architecture.stack import Stack
from xformer.attention.capability import Capability


class Decoder(Stack):
    """A causal stack."""

    causal: ClassVar[bool] = True
    needs: ClassVar[Capability] = Capability.CAUSAL
