"""A tokenizer that has learned all it will ever learn."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int64

from xformer.tokenizers.base import Tokenizer


class Frozen(Tokenizer):
    """Another tokenizer as it is: further texts teach it nothing, so that a model's ids keep their meaning.

    Args:
        tokenizer: a trained one.
    """

    stable_name: ClassVar[str] = "Trained"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @property
    def kind(self) -> str:
        """The tokenizer's."""
        return self.tokenizer.kind

    @property
    def vocabulary(self) -> int:
        """The tokenizer's."""
        return self.tokenizer.vocabulary

    @property
    def end_of_text(self) -> int | None:
        """The tokenizer's."""
        return self.tokenizer.end_of_text

    def train(self, texts: Iterable[str]) -> None:
        """Learn nothing."""

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Ids of a text."""
        return self.tokenizer.encode(text)

    def head(self, text: str) -> int:
        """Bytes of what the first token of a text stands for."""
        return self.tokenizer.head(text)

    def unread(self, text: str) -> int:
        """Bytes of what no token of a text stands for."""
        return self.tokenizer.unread(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids."""
        return self.tokenizer.decode(ids)

    def settings(self) -> dict[str, Any]:
        """Which tokenizer it is: data that it has tokenised are its own."""
        return {"fingerprint": self.tokenizer.fingerprint}

    def state(self) -> dict[str, Any]:
        """What was learned."""
        return self.tokenizer.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self.tokenizer.restore(state)
