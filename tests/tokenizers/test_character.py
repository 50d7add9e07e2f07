from hypothesis import given
from hypothesis import strategies as st

from tests.tokenizers.examples import TOKENIZERS, TRAINING
from tests.tokenizers.properties import fast
from xformer.tokenizers.character import Character


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
