import json
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xformer.data import bpe
from xformer.data.bpe import BPE
from xformer.data.byte import Byte
from xformer.data.character import Character
from xformer.data.tokenizer import Tokenizer
from xformer.errors import ConfigError, DataError

TRAINING = ["the cat sat on the mat, the cat sat on the hat.\n" * 5, "Größe: 30 °C\n\n  indented\n"]
fast = settings(deadline=None, max_examples=60)


def trained(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.train(TRAINING)
    return tokenizer


TOKENIZERS = {"byte": Byte(), "character": trained(Character()), "bpe": trained(BPE(vocabulary_size=300))}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]


@pytest.mark.parametrize("name", ["byte", "bpe"])
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


def test_bpe_learns_the_same_from_the_same():
    assert trained(BPE(vocabulary_size=300)).fingerprint == TOKENIZERS["bpe"].fingerprint
    assert trained(BPE(vocabulary_size=280)).fingerprint != TOKENIZERS["bpe"].fingerprint


@settings(deadline=None, max_examples=200)
@given(text=st.text(alphabet="ab' .\n\t0é", max_size=60))
def test_a_long_text_may_be_cut_without_changing_a_token(text):
    whole = TOKENIZERS["bpe"].encode(text).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "PIECE", 3)
        assert "".join(bpe.pieces(text)) == text
        assert TOKENIZERS["bpe"].encode(text).tolist() == whole


def test_a_long_text_is_cut(monkeypatch):
    monkeypatch.setattr(bpe, "PIECE", 3)
    assert list(bpe.pieces("abcd\nef\nghij\n\nkl\nm")) == ["abcd\n", "ef\n", "ghij\n\nkl\n", "m"]


@pytest.mark.parametrize("name", ["byte", "bpe"])
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


def test_a_vocabulary_below_the_bytes_is_refused():
    with pytest.raises(ConfigError, match=r"tokenizer\.vocabulary_size=256 does not hold the 256 bytes"):
        BPE(vocabulary_size=256)
