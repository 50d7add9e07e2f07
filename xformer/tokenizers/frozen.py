"""A frozen tokenizer: training it changes nothing."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int64

from xformer.tokenizers.base import Tokenizer


class Frozen(Tokenizer):
    """A wrapper around a trained tokenizer that ignores further training, so that a model's ids keep their meaning.

    Args:
        tokenizer: a trained one.
    """

    stable_name: ClassVar[str] = "Trained"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @property
    def kind(self) -> str:
        """The wrapped tokenizer's kind."""
        return self.tokenizer.kind

    @property
    def vocabulary(self) -> int:
        """The number of ids of the wrapped tokenizer."""
        return self.tokenizer.vocabulary

    @property
    def end_of_text(self) -> int | None:
        """The wrapped tokenizer's end-of-text id."""
        return self.tokenizer.end_of_text

    def train(self, texts: Iterable[str]) -> None:
        """Do nothing."""

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
        """The wrapped tokenizer's fingerprint, so that data tokenised with it have their own cache."""
        return {"fingerprint": self.tokenizer.fingerprint}

    def state(self) -> dict[str, Any]:
        """The wrapped tokenizer's learned state."""
        return self.tokenizer.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state that `state` returned."""
        self.tokenizer.restore(state)
