"""Byte-level byte-pair encoding (Sennrich et al., 2016; Radford et al., 2019), trained on the training text."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from xformer.tokenizers.library import ByteLevel

if TYPE_CHECKING:
    import tokenizers


class BPE(ByteLevel):
    """Byte-level byte-pair encoding: the most frequent pairs of neighbouring tokens are merged."""

    stable_name: ClassVar[str] = "BPE"

    def learn(self, texts: Iterable[str]) -> "tokenizers.Tokenizer":
        """Train: learn the merges from texts."""
        from tokenizers import pre_tokenizers, trainers

        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary_size - 1,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
            special_tokens=[],
        )
        model = self.empty()
        model.train_from_iterator(iter(texts), trainer)
        return model
