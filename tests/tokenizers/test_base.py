import json
import re
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xformer.errors import DataError
from xformer.tokenizers import pieces
from xformer.tokenizers.base import Tokenizer
from xformer.tokenizers.bpe import BPE
from xformer.tokenizers.byte import Byte
from xformer.tokenizers.character import Character
from xformer.tokenizers.file import File
from xformer.tokenizers.unigram import Unigram
from xformer.tokenizers.wordpiece import WordPiece

TRAINING = ["the cat sat on the mat, the cat sat on the hat.\n" * 5, "Größe: 30 °C\n\n  indented\n"]
fast = settings(deadline=None, max_examples=60)


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
LIBRARY = ["bpe", "unigram", "wordpiece"]


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]


@pytest.mark.parametrize("name", ["byte", "bpe", "unigram"])
@fast
@given(text=st.text())
def test_any_text_comes_back(name, text):
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids.tolist()) == text
    assert ((ids >= 0) & (ids < tokenizer.vocabulary - 1)).all()


@fast
@given(text=st.text(alphabet=sorted(set("".join(TRAINING)))))
def test_text_of_known_characters_comes_back(text):
    ids = TOKENIZERS["character"].encode(text)
    assert len(ids) == len(text)
    assert TOKENIZERS["character"].decode(ids.tolist()) == text


@fast
@given(text=st.text())
def test_unknown_characters_share_one_id(text):
    tokenizer = TOKENIZERS["character"]
    known = set("".join(TRAINING))
    ids = tokenizer.encode(text)
    unknown = tokenizer.vocabulary - 1
    assert [index == unknown for index in ids] == [character not in known for character in text]
    assert tokenizer.decode(ids.tolist()) == "".join(c if c in known else "\ufffd" for c in text)


def test_characters_are_sorted_and_the_unknown_one_is_last():
    tokenizer = Character()
    tokenizer.train(["abba", "cab"])
    assert tokenizer.vocabulary == 4
    assert tokenizer.encode("abcz").tolist() == [0, 1, 2, 3]
    assert tokenizer.end_of_text is None


def test_an_untrained_character_tokenizer_knows_nothing():
    assert Character().encode("ab").tolist() == [0, 0]


def test_bytes_are_bytes():
    assert Byte().encode("aé").tolist() == [97, 195, 169]
    assert (Byte().vocabulary, Byte().end_of_text) == (257, 256)


def test_bpe_merges_what_is_frequent():
    tokenizer = TOKENIZERS["bpe"]
    assert 257 < tokenizer.vocabulary <= 300
    assert tokenizer.end_of_text == tokenizer.vocabulary - 1
    assert len(tokenizer.encode("the cat sat")) < 6


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


@pytest.mark.parametrize("name", LIBRARY)
@settings(deadline=None, max_examples=150)
@given(text=st.text(alphabet="ab'the .,\n\t0é", max_size=60))
def test_a_long_text_may_be_cut_without_changing_a_token(name, text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE", 3)
        parts = list(pieces.pieces([text]))
    ids = [index for part in parts for index in TOKENIZERS[name].encode(part).tolist()]
    assert ids == TOKENIZERS[name].encode(text).tolist()


@fast
@given(text=st.text(min_size=1))
def test_the_head_is_what_the_first_token_stands_for(text):
    assert TOKENIZERS["byte"].head(text) == 1
    assert TOKENIZERS["character"].head(text) == len(text[0].encode())
    for name in ("bpe", "unigram"):
        tokenizer = TOKENIZERS[name]
        ids = tokenizer.encode(text).tolist()
        # Bytes of the rest: of a character that is cut, decoding would not give them.
        rest = sum(len(tokenizer._model.id_to_token(index)) for index in ids[1:])
        assert tokenizer.head(text) + rest == len(text.encode())


def test_the_head_of_a_word_is_up_to_its_end():
    tokenizer = TOKENIZERS["wordpiece"]
    assert tokenizer.head("  the mat") == 5
    assert tokenizer.head(" \n ") == 3


@pytest.mark.parametrize("name", ["byte", "bpe", "unigram"])
def test_the_end_of_text_decodes_to_nothing_and_cannot_be_spelt(name):
    tokenizer = TOKENIZERS[name]
    end = tokenizer.end_of_text
    ids = tokenizer.encode("the cat<|endoftext|></s>").tolist()
    assert end not in ids
    assert tokenizer.decode([*ids[:3], end, *ids[3:], end]) == "the cat<|endoftext|></s>"


def test_training_again_forgets(tokenizer):
    fresh = type(tokenizer)(**tokenizer.settings())
    fresh.train(["zzz" * 100 + string.ascii_letters])
    fresh.train(TRAINING)
    assert fresh.fingerprint == tokenizer.fingerprint


def test_a_saved_tokenizer_comes_back(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    loaded = type(tokenizer)(**tokenizer.settings())
    loaded.load(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.vocabulary == tokenizer.vocabulary
    np.testing.assert_array_equal(loaded.encode("the cat"), tokenizer.encode("the cat"))


def test_what_was_learned_is_in_the_fingerprint():
    one, other = Character(), Character()
    one.train(["abc"])
    other.train(["abd"])
    assert one.fingerprint != other.fingerprint
    assert Byte().fingerprint != Character().fingerprint


def test_another_kind_is_refused(tmp_path):
    Byte().save(tmp_path)
    with pytest.raises(DataError, match="holds a Byte tokenizer, not Character"):
        Character().load(tmp_path)


@pytest.mark.parametrize("content", [None, '{"kind": "By', json.dumps({"kind": "Byte"}), "[]"])
def test_a_damaged_file_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match="is no saved tokenizer"):
        Byte().load(tmp_path)


@pytest.mark.parametrize("state", [{}, {"model": "{"}, {"model": 3}, []])
def test_a_damaged_model_is_refused(tmp_path, state):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"kind": "BPE", "state": state}))
    with pytest.raises(DataError, match="is no saved tokenizer"):
        BPE(vocabulary_size=300).load(tmp_path)


def test_a_file_gives_the_ids_of_whoever_wrote_it(tmp_path):
    from tokenizers import Tokenizer as Model
    from tokenizers import models, pre_tokenizers, processors

    model = Model(models.WordLevel({"[UNK]": 3, "the": 7, "cat": 1}, unk_token="[UNK]"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    model.add_special_tokens(["[CLS]"])
    model.post_processor = processors.TemplateProcessing("[CLS] $A", special_tokens=[("[CLS]", 4)])
    model.enable_truncation(2)
    model.enable_padding(length=9)
    model.save(str(tmp_path / "word.json"))
    tokenizer = File(path=str(tmp_path / "word.json"))
    tokenizer.train(["never read"])
    assert tokenizer.encode("the cat the dog").tolist() == [7, 1, 7, 3]
    assert (tokenizer.end_of_text, tokenizer.vocabulary) == (8, 9)
    assert tokenizer.decode([7, 1, 8]) == "the cat"
    tokenizer.save(tmp_path)
    (tmp_path / "word.json").unlink()
    restored = File(path=str(tmp_path / "word.json"))
    restored.load(tmp_path)
    assert restored.encode("cat").tolist() == [1]
    assert restored.fingerprint == tokenizer.fingerprint


def test_a_file_may_be_that_of_a_run(tmp_path):
    TOKENIZERS["bpe"].save(tmp_path)
    tokenizer = File(path=str(tmp_path / "tokenizer.json"))
    assert tokenizer.encode("the cat").tolist() == TOKENIZERS["bpe"].encode("the cat").tolist()
    assert tokenizer.vocabulary == TOKENIZERS["bpe"].vocabulary


@pytest.mark.parametrize("content", [None, "{", "[]", '{"version": "1.0"}', '{"kind": "Byte", "state": {}}', b"\xff"])
def test_a_file_that_is_no_tokenizer_is_named(tmp_path, content):
    path = tmp_path / "t.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    tokenizer = File(path=str(path))
    message = "cannot be read" if content is None else "is (no tokenizer of the tokenizers library|not UTF-8)"
    for use in (lambda: tokenizer.train([]), lambda: tokenizer.settings(), lambda: tokenizer.vocabulary):
        with pytest.raises(DataError, match=rf"tokenizer\.path=.*t\.json {message}") as caught:
            use()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [BPE, Unigram, WordPiece])
def test_a_cell_without_a_space_is_learned_in_pieces_and_other_texts_as_they_are(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's time grows with the square of a word's length: 39 s for one of 300,000 letters."""
    seen: list[str] = []
    learn = kind.learn
    monkeypatch.setattr(kind, "learn", lambda self, texts: learn(self, [seen.append(text) or text for text in texts]))
    ordinary = ["a few words\n", "x" * 4096 + " " + "y" * 4096, "", " " * 4096]
    long = ["before " + "x" * 10_000 + " after", "\n" * 9_000 + "end"]
    kind(vocabulary_size=300).train([*ordinary, *long])
    assert seen[: len(ordinary)] == ordinary
    assert "".join(seen[len(ordinary) :]) == "".join(long)
    assert all(len(run) <= 4096 for text in seen for run in re.findall(r"\S+|\s+", text))
