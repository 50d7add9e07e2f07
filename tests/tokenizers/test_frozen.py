import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tokenizers.examples import TOKENIZERS
from tests.tokenizers.properties import fast
from xformer.tokenizers.frozen import Frozen


@fast
@given(text=st.text(min_size=1))
@pytest.mark.parametrize("name", TOKENIZERS)
def test_it_reads_as_its_tokenizer_does(name, text):
    own, trained = TOKENIZERS[name], Frozen(TOKENIZERS[name])
    ids = trained.encode(text).tolist()
    assert ids == own.encode(text).tolist()
    assert trained.decode(ids) == own.decode(ids)
    assert (trained.head(text), trained.unread(text)) == (own.head(text), own.unread(text))


def test_further_texts_teach_it_nothing(tokenizer):
    before, trained = tokenizer.fingerprint, Frozen(tokenizer)
    trained.train(["zzz" * 100 + string.ascii_letters])
    assert tokenizer.fingerprint == before
    assert (trained.kind, trained.vocabulary) == (tokenizer.kind, tokenizer.vocabulary)
    assert trained.end_of_text == tokenizer.end_of_text


def test_it_is_saved_and_comes_back(tokenizer, tmp_path):
    Frozen(tokenizer).save(tmp_path)
    loaded = Frozen(type(tokenizer)(**tokenizer.settings()))
    loaded.load(tmp_path)
    assert loaded.fingerprint == Frozen(tokenizer).fingerprint


def test_what_it_has_read_is_no_other_tokenizers():
    assert len({Frozen(each).fingerprint for each in TOKENIZERS.values()} | {TOKENIZERS["byte"].fingerprint}) == 6
