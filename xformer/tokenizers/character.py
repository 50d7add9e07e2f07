"""Character tokenizer: one id per character of the training text, and one for all others."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int64

from xformer.tokenizers.base import Tokenizer

UNKNOWN = "\N{REPLACEMENT CHARACTER}"


class Character(Tokenizer):
    """Character tokenizer: the training text's characters in code point order, then the unknown character."""

    stable_name: ClassVar[str] = "Character"
    end_of_text = None

    def __init__(self) -> None:
        self._points = np.empty(0, dtype=np.int64)

    @property
    def vocabulary(self) -> int:
        """The number of characters, plus one for unknown characters."""
        return len(self._points) + 1

    def learn(self, texts: Iterable[str]) -> None:
        """Collect the characters."""
        characters = {character for text in texts for character in set(text)}
        self._points = np.array(sorted(map(ord, characters)), dtype=np.int64)

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """One id per character."""
        points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.int64)
        ids = np.searchsorted(self._points, points)
        known = np.append(self._points, -1)[ids] == points
        return np.where(known, ids, len(self._points))

    def head(self, text: str) -> int:
        """The bytes of the first character."""
        return len(text[0].encode("utf-8"))

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids as text; unknown characters become the replacement character."""
        return "".join(chr(self._points[index]) if index < len(self._points) else UNKNOWN for index in ids)

    def state(self) -> dict[str, Any]:
        """The characters' code points."""
        return {"points": self._points.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the characters."""
        self._points = np.array(state["points"], dtype=np.int64)
