import json

from tests.tokenizers.examples import TOKENIZERS


def test_wordpiece_takes_the_longest_piece_first_and_knows_no_strange_word():
    tokenizer = TOKENIZERS["wordpiece"]
    vocabulary = {piece: index for piece, index in json.loads(tokenizer.state()["model"])["model"]["vocab"].items()}
    names = {index: piece for piece, index in vocabulary.items()}

    def longest_first(word: str) -> list[str]:
        found, start = [], 0
        while start < len(word):
            ends = range(len(word), start, -1)
            piece = next(p for e in ends if (p := ("##" if start else "") + word[start:e]) in vocabulary)
            found, start = [*found, piece], start + len(piece.removeprefix("##"))
        return found

    for word in ("the", "cat", "that", "hathe"):
        assert [names[index] for index in tokenizer.encode(word)] == longest_first(word)
    assert tokenizer.encode("the q, ##e [UNK]").tolist().count(vocabulary["[UNK]"]) > 2
    assert tokenizer.decode(tokenizer.encode("the  cat\nsat").tolist()) == "the cat sat"


def test_the_head_of_a_word_is_up_to_its_end():
    tokenizer = TOKENIZERS["wordpiece"]
    assert tokenizer.head("  the mat") == 5
    assert tokenizer.head(" \n ") == 3
