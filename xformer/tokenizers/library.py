"""The base classes of tokenizers that use the `tokenizers` library."""

import os
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

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
    """A tokenizer of the library. The end of text is the id after the model's, which no text can produce."""

    _model: "tokenizers.Tokenizer"

    @abstractmethod
    def fit(self, texts: Iterable[str]) -> "tokenizers.Tokenizer":
        """A model that is trained on texts; equal texts give equal models."""

    @property
    def vocabulary(self) -> int:
        """The number of the model's ids, plus one for the end of text."""
        return self.end_of_text + 1

    @property
    def end_of_text(self) -> int:
        """The id after the model's."""
        return 1 + max(self._model.get_vocab().values(), default=-1)

    def learn(self, texts: Iterable[str]) -> None:
        """Learn the model; the same texts give the same one."""
        self._model = self.fit(_short(texts))
        _settle()

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Ids of the model's tokens, special ones not added."""
        ids = self._model.encode(text, add_special_tokens=False).ids
        _settle()
        return np.array(ids, dtype=np.int64)

    def head(self, text: str) -> int:
        """The number of bytes up to the end of the first token, by the library's offsets."""
        offsets = self._model.encode(text, add_special_tokens=False).offsets
        return len((text[: offsets[0][1]] if offsets else text).encode("utf-8"))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids."""
        end = self.end_of_text
        text: str = self._model.decode([int(index) for index in ids if index != end], skip_special_tokens=False)
        return text

    def state(self) -> dict[str, Any]:
        """The model, in the library's JSON format."""
        return {"model": self._model.to_str()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the model."""
        self._model = parsed(state["model"])


class ByteLevel(LibraryTokenizer):
    """A byte-level tokenizer (Radford et al., 2019): without unknown tokens, and decoding returns the exact text.

    Args:
        vocabulary_size: most ids there may be, end of text included; short texts give fewer.
    """

    algorithm: ClassVar[str]
    """The name of the library's model."""

    def __init__(self, *, vocabulary_size: Annotated[int, Ge(257)]) -> None:
        self.vocabulary_size = vocabulary_size
        self._model = self.around()

    def around(self, *learned: Any) -> "tokenizers.Tokenizer":
        """A model with the library's byte-level pre-tokenizer and decoder, untrained or of what was learned."""
        from tokenizers import Tokenizer as Model
        from tokenizers import decoders, models, pre_tokenizers

        made = Model(getattr(models, self.algorithm)(*learned))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        return made

    def fit(self, texts: Iterable[str]) -> "tokenizers.Tokenizer":
        """The model that the library's trainer of the algorithm learns, in which every byte has a token."""
        from tokenizers import pre_tokenizers, trainers

        trainer = getattr(trainers, f"{self.algorithm.capitalize()}Trainer")(
            vocab_size=self.vocabulary_size - 1,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
            special_tokens=[],
        )
        model = self.around()
        model.train_from_iterator(iter(texts), trainer)
        return model

    def head(self, text: str) -> int:
        """The number of bytes of the first token, in which the library writes each byte as one character."""
        token = self._model.id_to_token(int(self.encode(text)[0]))
        assert token is not None
        return len(token)

    def settings(self) -> dict[str, Any]:
        """The maximum size of the vocabulary."""
        return {"vocabulary_size": self.vocabulary_size}


def parsed(text: str) -> "tokenizers.Tokenizer":
    """The model that the library's JSON describes.

    Raises:
        ValueError: the JSON does not describe a model.
    """
    from tokenizers import Tokenizer as Model

    try:
        return Model.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(str(error)) from error


@rereadable
def _short(texts: Iterable[str]) -> Iterator[str]:
    """Split texts so that no run of letters or of spaces is longer than `_LONGEST_RUN`; most texts are unchanged.

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
