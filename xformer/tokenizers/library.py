"""What the tokenizers of the `tokenizers` library share."""

import os
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge
from jaxtyping import Int64

from xformer.tokenizers.base import Tokenizer
from xformer.tokenizers.pieces import rereadable

if TYPE_CHECKING:
    import tokenizers

_LONGEST_RUN = 4096
_MANY_SPACES = re.compile(rf"\s{{{_LONGEST_RUN + 1}}}")
_RUNS = re.compile(r"\S+|\s+")


class LibraryTokenizer(Tokenizer):
    """A model of the library. The end of text is the id after the model's: no text can spell it."""

    _model: "tokenizers.Tokenizer"

    @abstractmethod
    def learn(self, texts: Iterable[str]) -> "tokenizers.Tokenizer":
        """The model that the texts give, always the same one."""

    @property
    def vocabulary(self) -> int:
        """The model's ids and the end of text."""
        return self.end_of_text + 1

    @property
    def end_of_text(self) -> int:
        """The id after the model's."""
        return 1 + max(self._model.get_vocab().values(), default=-1)

    def train(self, texts: Iterable[str]) -> None:
        """Learn the model; the same texts give the same one."""
        self._model = self.learn(_short(texts))
        _settle()

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Ids of the model's tokens, special ones not added."""
        ids = self._model.encode(text, add_special_tokens=False).ids
        _settle()
        return np.array(ids, dtype=np.int64)

    def head(self, text: str) -> int:
        """Bytes up to the end of the first token, as the library places it in the text."""
        offsets = self._model.encode(text, add_special_tokens=False).offsets
        return len((text[: offsets[0][1]] if offsets else text).encode("utf-8"))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids."""
        end = self.end_of_text
        text: str = self._model.decode([int(index) for index in ids if index != end], skip_special_tokens=False)
        return text

    def state(self) -> dict[str, Any]:
        """The model, in the library's own form."""
        return {"model": self._model.to_str()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the model."""
        self._model = parsed(state["model"])


class ByteLevel(LibraryTokenizer):
    """A model over bytes (Radford et al., 2019): nothing is unknown, and every text comes back from its ids.

    Args:
        vocabulary_size: most ids there may be, end of text included; short texts give fewer.

    Raises:
        ConfigError: the 256 bytes and the end of text do not fit.
    """

    def __init__(self, *, vocabulary_size: Annotated[int, Ge(257)]) -> None:
        self.vocabulary_size = vocabulary_size
        self._model = self.empty()

    @classmethod
    def empty(cls, model: Any = None) -> "tokenizers.Tokenizer":
        """A model with the library's bytes before and after it."""
        from tokenizers import Tokenizer as Model
        from tokenizers import decoders, models, pre_tokenizers

        made = Model(models.BPE() if model is None else model)
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        return made

    def head(self, text: str) -> int:
        """Bytes of the first token: the library writes each as one character."""
        token = self._model.id_to_token(int(self.encode(text)[0]))
        assert token is not None
        return len(token)

    def settings(self) -> dict[str, Any]:
        """The vocabulary's bound."""
        return {"vocabulary_size": self.vocabulary_size}


def parsed(text: str) -> "tokenizers.Tokenizer":
    """The model that the library's JSON describes.

    Raises:
        ValueError: it describes none.
    """
    from tokenizers import Tokenizer as Model

    try:
        return Model.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(str(error)) from error


@rereadable
def _short(texts: Iterable[str]) -> Iterator[str]:
    """Texts in pieces without a longer run of letters or of spaces than `_LONGEST_RUN`; nearly always themselves.

    The library takes such a run for one word, and learns merges in time that grows with the square of its length.
    """
    for text in texts:
        begin = 0
        if max(map(len, text.split()), default=0) > _LONGEST_RUN or _MANY_SPACES.search(text):
            for run in _RUNS.finditer(text):
                for end in range(run.start() + _LONGEST_RUN, run.end(), _LONGEST_RUN):
                    yield text[begin:end]
                    begin = end
        yield text[begin:]


def _settle() -> None:
    # The library prints a warning in every later fork, data workers included, unless this is decided.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
