"""A unigram language model over pieces of bytes (Kudo, 2018), learned from the training text.

A text is cut into the pieces whose product of probabilities is largest. Deviation from SentencePiece: the pieces are of
bytes, as in `bpe`, so that nothing is unknown and every text comes back; a piece never spans two words.
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from xformer.tokenizers.library import ByteLevel

if TYPE_CHECKING:
    import tokenizers

DIGITS = 4
# The library lists pieces that it must keep but never saw this far above the least probable one, in any order.
UNSEEN = 256 * 1e-4


class Unigram(ByteLevel):
    """Unigram tokenizer: pieces with log-probabilities, pruned from all frequent ones by expectation maximisation."""

    stable_name: ClassVar[str] = "Unigram"
    algorithm: ClassVar[str] = "Unigram"

    def fit(self, texts: Iterable[str]) -> "tokenizers.Tokenizer":
        """The pieces, the most probable first.

        The library adds up in an order that differs from run to run; rounding takes that out of the result.
        """
        found: list[tuple[str, float]] = json.loads(super().fit(texts).to_str())["model"]["vocab"]
        least = min(score for _, score in found)
        settled = [
            (piece, round(least if len(piece) == 1 and score <= least + UNSEEN else score, DIGITS))
            for piece, score in found
        ]
        return self.around(sorted(settled, key=lambda entry: (-entry[1], entry[0])))
