"""One tokenizer of each kind, of the same training texts."""

from xformer.tokenizers.base import Tokenizer
from xformer.tokenizers.bpe import BPE
from xformer.tokenizers.byte import Byte
from xformer.tokenizers.character import Character
from xformer.tokenizers.unigram import Unigram
from xformer.tokenizers.wordpiece import WordPiece

TRAINING = ["the cat sat on the mat, the cat sat on the hat.\n" * 5, "Größe: 30 °C\n\n  indented\n"]


def trained(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.train(TRAINING)
    return tokenizer


TOKENIZERS = {
    "byte": Byte(),
    "character": trained(Character()),
    "bpe": trained(BPE(vocabulary_size=300)),
    "unigram": trained(Unigram(vocabulary_size=300)),
    "wordpiece": trained(WordPiece(vocabulary_size=60)),
}
