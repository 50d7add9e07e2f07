"""A pretrained tokenizer from a `tokenizer.json` file of the `tokenizers` library."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Int64

from xformer.core.digest import digest
from xformer.errors import DataError
from xformer.tokenizers.library import LibraryTokenizer, parsed
from xformer.tokenizers.utf8 import decode_utf8

if TYPE_CHECKING:
    import tokenizers


class File(LibraryTokenizer):
    """A tokenizer from any `tokenizer.json`, also a run's; it keeps the file's ids and adds the end of text after them.

    Padding, truncation and special tokens that the file would add are left out: the data do without. Whether a text
    comes back from its ids, and whether a token stands for unknown text, is the file's affair; what it drops
    for want of one is counted. A document longer than a megabyte is encoded in pieces, which a tokenizer that marks the
    beginning of a text will notice.

    Args:
        path: the file.
    """

    stable_name: ClassVar[str] = "File"

    def __init__(self, *, path: str) -> None:
        self.path = path
        self._read: tokenizers.Tokenizer | None = None
        self._dropped: dict[str, bool] = {}

    @property
    def _model(self) -> "tokenizers.Tokenizer":
        if self._read is None:
            self._read = self._load()
        return self._read

    @_model.setter
    def _model(self, model: "tokenizers.Tokenizer") -> None:
        self._read = model
        self._dropped.clear()

    def fit(self, texts: Iterable[str]) -> "tokenizers.Tokenizer":
        """The model in the file, whatever the texts."""
        return self._load()

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Ids of the model's tokens.

        Raises:
            DataError: the model can neither read nor drop some of the text.
        """
        try:
            return super().encode(text)
        except DataError:
            raise
        except Exception as error:  # the library raises nothing narrower
            raise DataError(
                f"tokenizer.path={self.path} cannot read some of the text ({str(error).rstrip('.')}): use a tokenizer "
                "that has an unknown token, or works on bytes."
            ) from error

    def head(self, text: str) -> int:
        """The number of bytes that the first token represents, with the whitespace before it."""
        whole = text.encode("utf-8")[: super().head(text)].decode("utf-8", errors="ignore")
        return len(whole.encode("utf-8")) - self.unread(whole)

    def unread(self, text: str) -> int:
        """The number of bytes of characters that decoding does not return."""
        return sum(
            count * len(character.encode("utf-8", errors="surrogatepass"))
            for character, count in Counter(text).items()
            if not character.isspace() and self._drops(character)
        )

    def _drops(self, character: str) -> bool:
        """Whether a character has no token, at the start of a word or within it, which some models distinguish."""
        if character not in self._dropped:
            try:
                read = [
                    self.decode(self._model.encode(text, add_special_tokens=False).ids)
                    for text in (character, 3 * character)
                ]
            except Exception:  # which the model would raise on the text too, instead of dropping any
                read = [character]
            self._dropped[character] = not any(map(str.strip, read))
        return self._dropped[character]

    def settings(self) -> dict[str, Any]:
        """The content of the model, which decides the ids; its path does not matter."""
        return {"model": digest(self._model.to_str())}

    def _load(self) -> "tokenizers.Tokenizer":
        path = Path(self.path).expanduser()
        try:
            text = decode_utf8(path.read_bytes(), f"tokenizer.path={self.path}")
            content = json.loads(text)
            saved = content.get("state", {}).get("model")
            model = parsed(text if saved is None else saved)
        except OSError as error:
            raise DataError(
                f"tokenizer.path={self.path} cannot be read ({error.strerror}, seen from {Path.cwd()}): use an "
                "existing file."
            ) from error
        except (ValueError, AttributeError) as error:
            raise DataError(
                f"tokenizer.path={self.path} is not a tokenizer of the tokenizers library "
                f"({str(error).splitlines()[0]}): use another file."
            ) from error
        model.no_padding()
        model.no_truncation()
        return model
