"""WordPiece (Schuster & Nakajima, 2012; as BERT reads it, Devlin et al., 2019), learned from the training text.

Words are cut at whitespace and punctuation, and each into the longest pieces of the vocabulary, from the left. The
vocabulary is learned by merges, as the library does. What a text says comes back from the ids, its whitespace does not,
and a word with a character that training never saw is unknown as a whole.
"""

import string
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from annotated_types import Ge

from xformer.tokenizers.library import LibraryTokenizer

if TYPE_CHECKING:
    import tokenizers

UNKNOWN = "[UNK]"
ALPHABET = 1000


class WordPiece(LibraryTokenizer):
    """WordPiece tokenizer: pieces of words; those within a word begin with ##.

    Args:
        vocabulary_size: most ids there may be, the unknown piece and the end of text included.
    """

    stable_name: ClassVar[str] = "WordPiece"

    def __init__(self, *, vocabulary_size: Annotated[int, Ge(4)]) -> None:
        self.vocabulary_size = vocabulary_size
        self._model = _around({UNKNOWN: 0})

    def fit(self, texts: Iterable[str]) -> "tokenizers.Tokenizer":
        """The pieces. The texts are read twice."""
        from tokenizers import trainers

        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text)
        frequent = sorted((c for c in counts if not c.isspace()), key=lambda c: (-counts[c], c))
        alphabet = frequent[: min(ALPHABET, self.vocabulary_size // 2 - 1)]
        # The library numbers the pieces within words as it meets them, and it meets words in any order: list them.
        within = sorted(f"##{c}" for c in alphabet if c not in string.punctuation)
        trainer = trainers.WordPieceTrainer(
            vocab_size=self.vocabulary_size - 1,
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            special_tokens=[UNKNOWN, *within],
            show_progress=False,
        )
        model = _around({UNKNOWN: 0})
        model.train_from_iterator(iter(texts), trainer)
        # Anew, because there the listed pieces are special: a text could spell them.
        return _around(model.get_vocab())

    def settings(self) -> dict[str, Any]:
        """The maximum size of the vocabulary."""
        return {"vocabulary_size": self.vocabulary_size}


def _around(vocabulary: dict[str, int]) -> "tokenizers.Tokenizer":
    from tokenizers import Tokenizer as Model
    from tokenizers import decoders, models, pre_tokenizers

    model = Model(models.WordPiece(vocabulary, unk_token=UNKNOWN))
    model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    model.decoder = decoders.WordPiece(cleanup=False)
    return model
