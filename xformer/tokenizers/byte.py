"""Byte tokenizer: UTF-8 bytes as tokens, without training or unknown tokens."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from xformer.tokenizers.base import Tokenizer


class Byte(Tokenizer):
    """Byte tokenizer: ids 0 to 255 are bytes, 256 is the end of text."""

    stable_name: ClassVar[str] = "Byte"
    vocabulary = 257
    end_of_text = 256

    def learn(self, texts: Iterable[str]) -> None:
        """Do nothing: there is nothing to learn."""

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Bytes of the text in UTF-8."""
        return np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int64)

    def head(self, text: str) -> int:
        """One byte."""
        return 1

    def decode(self, ids: Sequence[int]) -> str:
        """Decode bytes as text; invalid UTF-8 becomes the replacement character."""
        return bytes(index for index in ids if index < 256).decode("utf-8", errors="replace")
