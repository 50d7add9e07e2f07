"""What the models of the library share: they learn the same from the same texts, in bearable time."""

import json
import re

import pytest

from xformer.errors import DataError
from xformer.tokenizers.bpe import BPE
from xformer.tokenizers.unigram import Unigram
from xformer.tokenizers.wordpiece import WordPiece


@pytest.mark.parametrize("kind", [BPE, Unigram, WordPiece])
def test_the_same_texts_give_the_same_tokenizer(kind):
    from pydoc_data.topics import topics

    texts = [topics[name] for name in sorted(topics)[:25]]
    fingerprints = set()
    for _ in range(3):  # in another order of the library's own each time
        tokenizer = kind(vocabulary_size=500)
        tokenizer.train(texts)
        fingerprints.add(tokenizer.fingerprint)
    assert len(fingerprints) == 1
    assert tokenizer.vocabulary == 500
    assert kind(vocabulary_size=400).fingerprint not in fingerprints


@pytest.mark.parametrize("kind", [BPE, Unigram, WordPiece])
def test_a_cell_without_a_space_is_learned_in_pieces_and_other_texts_as_they_are(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's time grows with the square of a word's length: 39 s for one of 300,000 letters."""
    seen: list[str] = []
    fit = kind.fit
    monkeypatch.setattr(kind, "fit", lambda self, texts: fit(self, [seen.append(text) or text for text in texts]))
    ordinary = ["a few words\n", "x" * 4096 + " " + "y" * 4096, "", " " * 4096]
    long = ["before " + "x" * 10_000 + " after", "\n" * 9_000 + "end"]
    kind(vocabulary_size=300).train([*ordinary, *long])
    assert seen[: len(ordinary)] == ordinary
    assert "".join(seen[len(ordinary) :]) == "".join(long)
    assert all(len(run) <= 4096 for text in seen for run in re.findall(r"\S+|\s+", text))


@pytest.mark.parametrize("state", [{}, {"model": "{"}, {"model": 3}, []])
def test_a_damaged_model_is_refused(tmp_path, state):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"kind": "BPE", "state": state}))
    with pytest.raises(DataError, match="is not a saved tokenizer"):
        BPE(vocabulary_size=300).load(tmp_path)
