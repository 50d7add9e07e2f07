import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokenizers.examples import TOKENIZERS
from xformer.tokenizers import pieces
from xformer.tokenizers.pieces import rereadable


@pytest.mark.parametrize("name", ["bpe", "unigram", "wordpiece"])
@settings(deadline=None, max_examples=150)
@given(text=st.text(alphabet="ab'the .,\n\t0é", max_size=60))
def test_a_long_text_may_be_cut_without_changing_a_token(name, text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE", 3)
        parts = list(pieces.pieces([text]))
    ids = [index for part in parts for index in TOKENIZERS[name].encode(part).tolist()]
    assert ids == TOKENIZERS[name].encode(text).tolist()


def test_a_long_text_is_cut_at_line_ends(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 3)
    found = list(pieces.pieces(["abcd\nef\nghij\n\nkl\nm"]))
    assert found == ["abcd\n", "ef\n", "ghij\n\nkl\n", "m"]
    # WikiText's lines begin and end with a space.
    assert list(pieces.pieces([" = A = \n b . \n", " c \n  d"])) == [" = A = \n", " b . \n", " c \n  d"]


def test_a_text_without_line_ends_is_cut_where_memory_ends(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 3)
    monkeypatch.setattr(pieces, "LONGEST", 7)
    assert list(pieces.pieces(["a" * 20])) == ["a" * 7, "a" * 7, "a" * 6]


@settings(deadline=None, max_examples=200)
@given(text=st.text(alphabet="ab \n", max_size=60), size=st.integers(1, 20), longest=st.integers(4, 30))
def test_the_cuts_do_not_depend_on_the_chunks(text, size, longest):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE", 3)
        patch.setattr(pieces, "LONGEST", longest)
        whole = list(pieces.pieces([text]))
        assert list(pieces.pieces(text[i : i + size] for i in range(0, len(text), size))) == whole
    assert "".join(whole) == text
    assert all(0 < len(piece) <= longest for piece in whole[:-1])


def test_a_stream_begins_anew_for_every_reader():
    @rereadable
    def counted(last):
        yield from range(last)

    stream = counted(last=3)
    readers = zip(stream, stream, strict=True)
    assert list(readers) == [(0, 0), (1, 1), (2, 2)]
    assert list(stream) == [0, 1, 2]
