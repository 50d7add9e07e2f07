"""Tokenised data: the tokenizer is trained on the data, cached with the tokens and saved with each run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from xformer.data.base import CachedData
from xformer.tokenizers.base import Tokenizer

UNREAD_FILE = "unread.json"


@dataclass(kw_only=True, eq=False, repr=False)
class TokenisedData(CachedData):
    """The base class of data modules with a tokenizer."""

    tokenizer: Tokenizer  # trained on the training split alone, in `prepare_data`, unless the cache has it trained
    unread: str = field(init=False)  # what `describe` adds where the tokenizer has no token for some of the text

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Ids of a text, without the end of text."""
        return self.tokenizer.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """Decode ids as text, without ids that are not the tokenizer's, such as padding."""
        vocabulary = self.tokenizer.vocabulary
        return self.tokenizer.decode([token for token in tokens if token < vocabulary])

    def save(self, directory: Path) -> None:
        """Write the spec and the tokenizer."""
        super().save(directory)
        self.tokenizer.save(directory)

    def restore(self, directory: Path) -> None:
        """Load the spec and the tokenizer."""
        super().restore(directory)
        self.tokenizer.load(directory)


def token_type(tokenizer: Tokenizer) -> np.dtype[Any]:
    """The smallest unsigned type that holds a trained tokenizer's ids."""
    return np.dtype(np.uint16 if tokenizer.vocabulary <= 1 << 16 else np.uint32)


class Unread:
    """Counts, for each split, the bytes of the text and those that no token represents.

    Args:
        tokenizer: trained.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._counts: dict[str, list[int]] = {}

    def read(self, split: str, text: str) -> int:
        """Count a text; return the number of UTF-8 bytes that its tokens represent."""
        whole, lost = len(text.encode("utf-8", errors="surrogatepass")), self._tokenizer.unread(text)
        counts = self._counts.setdefault(split, [0, 0])
        counts[0] += lost
        counts[1] += whole
        return whole - lost

    def save(self, directory: Path) -> None:
        """Save the counts if some bytes have no token."""
        if any(lost for lost, _ in self._counts.values()):
            (directory / UNREAD_FILE).write_text(json.dumps(self._counts), encoding="utf-8")


def remark(directory: Path) -> str:
    """A remark on the share of text without a token; empty if there is none."""
    if not (directory / UNREAD_FILE).exists():
        return ""
    counts = json.loads((directory / UNREAD_FILE).read_text(encoding="utf-8"))
    shares = ", ".join(f"{100 * lost / max(1, whole):.3g} % of {split}" for split, (lost, whole) in counts.items())
    return f"; without a token in the vocabulary: {shares} (bytes)"
