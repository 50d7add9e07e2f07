import json

import pytest

from xformer.tokenizers.unigram import Unigram


def test_unigram_cuts_into_the_most_probable_pieces():
    """Viterbi against all segmentations, with the probabilities that were learned."""
    tokenizer = Unigram(vocabulary_size=400)
    tokenizer.train(["the cat sat on the mat and the cat sat on the hat in the attic that they sat in\n" * 30])
    scores = dict(json.loads(tokenizer.state()["model"])["model"]["vocab"])

    def best(word: str) -> float:
        ends = range(1, len(word) + 1)
        return max((scores[word[:e]] + best(word[e:]) for e in ends if word[:e] in scores), default=0.0)

    assert any(len(piece) > 2 for piece in scores)
    for word in ("the", "cat", "thecat", "hatthat", "xtheyq"):
        pieces = [list(scores)[index] for index in tokenizer.encode(word)]
        assert "".join(pieces) == word
        assert sum(scores[piece] for piece in pieces) == pytest.approx(best(word), abs=1e-9)
