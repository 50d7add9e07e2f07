"""Byte-level byte-pair encoding (Sennrich et al., 2016; Radford et al., 2019), trained on the training text."""

from typing import ClassVar

from xformer.tokenizers.library import ByteLevel


class BPE(ByteLevel):
    """Byte-level byte-pair encoding: the most frequent pairs of neighbouring tokens are merged."""

    stable_name: ClassVar[str] = "BPE"
    algorithm: ClassVar[str] = "BPE"
