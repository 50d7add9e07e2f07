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

    def learn(self, texts: Iterable[str]) -> "tokenizers.Tokenizer":
        """The pieces, the most probable first.

        The library adds up in an order that differs from run to run; rounding takes that out of the result.
        """
        from tokenizers import models, pre_tokenizers, trainers

        trainer = trainers.UnigramTrainer(
            vocab_size=self.vocabulary_size - 1,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
            special_tokens=[],
        )
        model = self.empty(models.Unigram())
        model.train_from_iterator(iter(texts), trainer)
        found: list[tuple[str, float]] = json.loads(model.to_str())["model"]["vocab"]
        least = min(score for _, score in found)
        settled = [
            (piece, round(least if len(piece) == 1 and score <= least + UNSEEN else score, DIGITS))
            for piece, score in found
        ]
        return self.empty(models.Unigram(sorted(settled, key=lambda entry: (-entry[1], entry[0]))))
