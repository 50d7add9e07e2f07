"""A tokenizer that somebody else has trained, from a file in the `tokenizers` library's form."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xformer.data.cache import digest
from xformer.data.library import LibraryTokenizer, parsed
from xformer.data.utf8 import decode
from xformer.errors import DataError

if TYPE_CHECKING:
    import tokenizers


class File(LibraryTokenizer):
    """Any `tokenizer.json`, a run's own included; the ids are the file's, and the end of text comes after them.

    Padding, truncation and special tokens that the file would add are left out: the data do without. Whether a text
    comes back from its ids, and whether a token stands for unknown text, is the file's affair. A document longer than a
    megabyte is encoded in pieces, which a tokenizer that marks the beginning of a text will notice.

    Args:
        path: the file.
    """

    def __init__(self, *, path: str) -> None:
        self.path = path
        self._read: tokenizers.Tokenizer | None = None

    @property
    def _model(self) -> "tokenizers.Tokenizer":
        if self._read is None:
            self._read = self._load()
        return self._read

    @_model.setter
    def _model(self, model: "tokenizers.Tokenizer") -> None:
        self._read = model

    def learn(self, texts: Iterable[str]) -> "tokenizers.Tokenizer":
        """Learn nothing; the model as the file has it."""
        return self._load()

    def settings(self) -> dict[str, Any]:
        """Everything: the model decides what ids there are, wherever it lies."""
        return {"model": digest(self._model.to_str())}

    def _load(self) -> "tokenizers.Tokenizer":
        path = Path(self.path).expanduser()
        try:
            text = decode(path.read_bytes(), f"tokenizer.path={self.path}")
            content = json.loads(text)
            own = content.get("state", {}).get("model")
            model = parsed(text if own is None else own)
        except OSError as error:
            raise DataError(
                f"tokenizer.path={self.path} cannot be read ({error.strerror}, seen from {Path.cwd()}): give a file."
            ) from error
        except (ValueError, AttributeError) as error:
            raise DataError(
                f"tokenizer.path={self.path} is no tokenizer of the tokenizers library "
                f"({str(error).splitlines()[0]}): give another file."
            ) from error
        model.no_padding()
        model.no_truncation()
        return model
