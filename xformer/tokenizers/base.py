"""The base class of tokenizers, which convert text to ids and back, and are trained on training text only."""

import copy
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
    """A tokenizer. Subclasses return what was learned in `state`, and their parameters in `settings`.

    Each states a `stable_name`, by which its fingerprints, caches and files know it, whatever the class is called.

    Attributes:
        frozen: whether further training changes nothing; see `freeze`.
    """

    stable_name: ClassVar[str]
    frozen = False

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """The number of ids."""

    @property
    @abstractmethod
    def end_of_text(self) -> int | None:
        """The id appended to each document; None if documents are concatenated without one."""

    @abstractmethod
    def learn(self, texts: Iterable[str]) -> None:
        """Learn from texts, which can be read more than once; what was learned before is discarded."""

    @abstractmethod
    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Encode a text as ids, without `end_of_text`."""

    @abstractmethod
    def head(self, text: str) -> int:
        """The number of UTF-8 bytes of the text that the first token represents; the text is not empty."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids as text; `end_of_text` decodes to an empty string."""

    def unread(self, text: str) -> int:
        """The number of UTF-8 bytes of a text that no token represents, without whitespace; 0 if nothing is dropped."""
        return 0

    def settings(self) -> dict[str, Any]:
        """The parameters that, with the training texts, decide what is learned; by default none."""
        return {}

    def state(self) -> dict[str, Any]:
        """What was learned, as JSON values; by default nothing."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027 (nothing to restore by default)
        """Restore what `state` returned."""

    def train(self, texts: Iterable[str]) -> None:
        """Learn from texts, unless the tokenizer is frozen."""
        if not self.frozen:
            self.learn(texts)

    def freeze(self) -> "Tokenizer":
        """A copy that further training does not change, so that a model's ids keep their meaning."""
        frozen = copy.copy(self)
        frozen.frozen = True
        return frozen

    @property
    def kind(self) -> str:
        """The name of the kind of tokenizer."""
        return stable_name_of(type(self))

    @property
    def identity(self) -> tuple[str, dict[str, Any]]:
        """What, with the training texts, decides the ids; of a frozen tokenizer, whatever the texts."""
        trained = self.kind, self.settings()
        return ("Trained", {"fingerprint": digest(*trained, self.state())}) if self.frozen else trained

    @property
    def fingerprint(self) -> str:
        """Stable hash of the kind, its settings and what was learned."""
        return digest(*self.identity, self.state())

    def save(self, directory: Path) -> None:
        """Write `tokenizer.json` into a directory."""
        content = {"kind": self.identity[0], "state": self.state()}
        (directory / FILE).write_text(json.dumps(content), encoding="utf-8")

    def load(self, directory: Path) -> None:
        """Load a file that `save` wrote.

        Raises:
            DataError: the file is missing, damaged or of another kind of tokenizer.
        """
        path, expected = directory / FILE, "Trained" if self.frozen else self.kind
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            kind, state = content["kind"], content["state"]
            if kind == expected:
                self.restore(state)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is not a saved tokenizer ({error}): train it again.") from error
        if kind != expected:
            raise DataError(f"{path} holds a {kind} tokenizer, not {expected}: set tokenizer accordingly.")


@runtime_checkable
class Tokenised(Protocol):
    """Protocol of data with a tokenizer."""

    tokenizer: Tokenizer
