"""The seam of tokenisation: from text to ids and back, learned from training text only."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from xformer.core.digest import digest, stable_name_of
from xformer.errors import DataError

FILE = "tokenizer.json"


class Tokenizer(ABC):
    """Turns text into ids. Subclasses keep all they learned in `state` and all they were given in `settings`.

    Each states a `stable_name`, by which its fingerprints, caches and files know it, whatever the class is called.
    """

    stable_name: ClassVar[str]

    @property
    def kind(self) -> str:
        """Its name."""
        return stable_name_of(type(self))

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """Number of ids."""

    @property
    @abstractmethod
    def end_of_text(self) -> int | None:
        """The id appended to each document; None where documents simply follow each other."""

    @abstractmethod
    def train(self, texts: Iterable[str]) -> None:
        """Learn from the training texts, which can be read more than once, forgetting what was learned before."""

    @abstractmethod
    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Ids of a text, without `end_of_text`."""

    @abstractmethod
    def head(self, text: str) -> int:
        """Bytes, in UTF-8, of what the first token of a text that is not empty stands for."""

    def unread(self, text: str) -> int:
        """Bytes, in UTF-8, of what no token of a text stands for, whitespace aside; 0 unless a tokenizer drops any."""
        return 0

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; `end_of_text` decodes to nothing."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What decides, with the training texts, what is learned."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What was learned, as JSON can hold it."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""

    @property
    def fingerprint(self) -> str:
        """Stable hash of the kind, its settings and what was learned."""
        return digest(stable_name_of(type(self)), self.settings(), self.state())

    def save(self, directory: Path) -> None:
        """Write `tokenizer.json` into a directory."""
        content = {"kind": stable_name_of(type(self)), "state": self.state()}
        (directory / FILE).write_text(json.dumps(content), encoding="utf-8")

    def load(self, directory: Path) -> None:
        """Take over what `save` wrote.

        Raises:
            DataError: If the file is missing, damaged or of another kind of tokenizer.
        """
        path, expected = directory / FILE, stable_name_of(type(self))
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            kind, state = content["kind"], content["state"]
            if kind == expected:
                self.restore(state)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is no saved tokenizer ({error}): train it again.") from error
        if kind != expected:
            raise DataError(f"{path} holds a {kind} tokenizer, not {expected}: set tokenizer accordingly.")


@runtime_checkable
class Tokenised(Protocol):
    """Data with a tokenizer."""

    tokenizer: Tokenizer
