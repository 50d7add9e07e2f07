import json
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tokenizers.examples import TOKENIZERS, TRAINING
from tests.tokenizers.properties import fast
from xformer.errors import DataError
from xformer.tokenizers.byte import Byte
from xformer.tokenizers.character import Character


@pytest.mark.parametrize("name", ["byte", "bpe", "unigram"])
@fast
@given(text=st.text())
def test_any_text_comes_back(name, text):
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids.tolist()) == text
    assert ((ids >= 0) & (ids < tokenizer.vocabulary - 1)).all()


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
    with pytest.raises(DataError, match="is not a saved tokenizer"):
        Byte().load(tmp_path)


@fast
@given(text=st.text(min_size=1))
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_frozen_copy_reads_as_its_tokenizer_does(name, text):
    own, trained = TOKENIZERS[name], TOKENIZERS[name].freeze()
    ids = trained.encode(text).tolist()
    assert ids == own.encode(text).tolist()
    assert trained.decode(ids) == own.decode(ids)
    assert (trained.head(text), trained.unread(text)) == (own.head(text), own.unread(text))


def test_further_texts_teach_a_frozen_copy_nothing(tokenizer):
    before, trained = tokenizer.fingerprint, tokenizer.freeze()
    trained.train(["zzz" * 100 + string.ascii_letters])
    assert tokenizer.fingerprint == before
    assert (trained.kind, trained.vocabulary) == (tokenizer.kind, tokenizer.vocabulary)
    assert trained.end_of_text == tokenizer.end_of_text


def test_a_frozen_copy_is_saved_and_comes_back(tokenizer, tmp_path):
    tokenizer.freeze().save(tmp_path)
    loaded = type(tokenizer)(**tokenizer.settings()).freeze()
    loaded.load(tmp_path)
    assert loaded.fingerprint == tokenizer.freeze().fingerprint


def test_what_a_frozen_copy_has_read_is_no_other_tokenizers():
    assert len({each.freeze().fingerprint for each in TOKENIZERS.values()} | {TOKENIZERS["byte"].fingerprint}) == 6
