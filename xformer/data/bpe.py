"""Byte-level byte-pair encoding (Sennrich et al., 2016; Radford et al., 2019), learned from the training text."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from xformer.data.tokenizer import Tokenizer
from xformer.errors import ConfigError

if TYPE_CHECKING:
    import tokenizers

PIECE = 1 << 20
# Between a line's end after a visible character and a visible character, where no token may reach across.
SEAM = re.compile(r"(?<=\S\n)(?=\S)")


class BPE(Tokenizer):
    """Merges of bytes. The end of text is the last id, outside of the merges: no text can spell it.

    Args:
        vocabulary_size: Most ids there may be, end of text included; short texts give fewer.

    Raises:
        ConfigError: If the 256 bytes and the end of text do not fit.
    """

    def __init__(self, *, vocabulary_size: int) -> None:
        if vocabulary_size < 257:
            raise ConfigError(
                f"tokenizer.vocabulary_size={vocabulary_size} does not hold the 256 bytes and the end of text: "
                "use at least 257, or tokenizer=byte."
            )
        self.vocabulary_size = vocabulary_size
        self._model = self._new()

    @staticmethod
    def _new() -> "tokenizers.Tokenizer":
        from tokenizers import Tokenizer as Model
        from tokenizers import decoders, models, pre_tokenizers

        model = Model(models.BPE())
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = decoders.ByteLevel()
        return model

    @property
    def vocabulary(self) -> int:
        """The merges' ids and the end of text."""
        return self._model.get_vocab_size() + 1

    @property
    def end_of_text(self) -> int:
        """The id after the merges'."""
        return self._model.get_vocab_size()

    def train(self, texts: Iterable[str]) -> None:
        """Learn the merges; the same texts give the same ones."""
        from tokenizers import pre_tokenizers, trainers

        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary_size - 1,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
            special_tokens=[],
        )
        self._model.train_from_iterator((piece for text in texts for piece in pieces(text)), trainer)
        _settle()

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Ids of the merges."""
        encodings = self._model.encode_batch(list(pieces(text)))
        _settle()
        return np.concatenate([np.array(encoding.ids, dtype=np.int64) for encoding in encodings])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids; bytes that are not UTF-8 become the replacement character."""
        text: str = self._model.decode([int(index) for index in ids if index != self.end_of_text])
        return text

    def settings(self) -> dict[str, Any]:
        """The vocabulary's bound."""
        return {"vocabulary_size": self.vocabulary_size}

    def state(self) -> dict[str, Any]:
        """The merges, in the `tokenizers` library's own form."""
        return {"model": self._model.to_str()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the merges."""
        from tokenizers import Tokenizer as Model

        self._model = Model.from_str(state["model"])


def pieces(text: str) -> Iterator[str]:
    """Cut a long text where cutting changes no token: the library's memory grows with the longest piece."""
    begin = 0
    while len(text) - begin > PIECE:
        seam = SEAM.search(text, begin + PIECE)
        if seam is None:
            break
        yield text[begin : seam.start()]
        begin = seam.start()
    yield text[begin:]


def _settle() -> None:
    # The library prints a warning in every later fork, data workers included, unless this is decided.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
