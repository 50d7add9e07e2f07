import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xformer.data.sources import documents
from xformer.data.sources.documents import Extent, Piece, cut_documents, extent, in_files, in_memory, stretch
from xformer.data.sources.packing import pack, unpack
from xformer.errors import DataError
from xformer.tokenizers import pieces
from xformer.tokenizers.wordpiece import WordPiece


def joined(found: documents.Documents) -> list[str]:
    return "".join(text + ("|" if last else "") for text, last in found).split("|")[:-1]


@settings(deadline=None, max_examples=100)
@given(
    texts=st.lists(st.text(alphabet="abc\n "), max_size=8),
    fractions=st.lists(st.sampled_from([0.05, 0.1, 0.3]), max_size=2),
    size=st.integers(2, 9),
)
def test_cutting_loses_nothing_and_keeps_the_proportions(texts, fractions, size):
    whole = "".join(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE", size)
        parts = [list(part) for part in cut_documents(in_memory(texts), len(whole), fractions)]
    assert len(parts) == 1 + len(fractions)
    assert "".join(piece.text for part in parts for piece in part) == whole
    for part in parts:
        assert all(piece.text for piece in part)
        assert not part or part[-1].last
    for part, fraction in zip(parts[1:], fractions, strict=True):
        assert sum(len(piece.text) for piece in part) == pytest.approx(len(whole) * fraction, abs=1)


def test_a_document_is_cut_at_the_border_only():
    parts = cut_documents(in_memory(["aaaa", "bbbb", "cc"]), 10, [0.2, 0.2])
    assert [joined(part) for part in parts] == [["aaaa", "bb"], ["bb"], ["cc"]]


def test_the_usual_split_of_a_file_is_ninety_to_ten():
    parts = cut_documents(in_memory(["x" * 1_115_394]), 1_115_394, [0.1])
    assert [len(joined(part)[0]) for part in parts] == [1_003_854, 111_540]


@pytest.mark.parametrize("chunk", [1, 2, 3, 1 << 20])
def test_a_file_read_in_chunks_is_its_text_and_an_error_names_the_byte(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(documents, "CHUNK", chunk)
    path = tmp_path / "a.txt"
    path.write_bytes("Größe\r\n\U0001f600".encode())
    assert list(in_files([path], "data.files")) == [Piece("Größe\r\n\U0001f600", True)]
    path.write_bytes("Größe".encode() + b"\xe9x")
    with pytest.raises(DataError, match=r"data\.files=.*a\.txt is not UTF-8 at byte 7: convert the file"):
        list(in_files([path], "data.files"))
    path.write_bytes("Größe\U0001f600".encode()[:-1])
    with pytest.raises(DataError, match="is not UTF-8 at byte 7"):
        list(in_files([path], "data.files"))


def test_an_extent_follows_the_content_and_the_borders():
    assert extent(in_memory(["ab", "c"])).characters == 3
    found = [extent(in_memory(texts)) for texts in (["ab", "c"], ["a", "bc"], ["abc"], ["ab", "d"], ["ab", "", "c"])]
    assert len({each.content for each in found}) == 4
    assert found[0] == found[4] == Extent(3, found[0].content)


def test_an_extent_does_not_depend_on_the_pieces(monkeypatch):
    texts = in_memory(["abc\ndef\nghi\n", "x"])
    whole = extent(texts)
    monkeypatch.setattr(pieces, "PIECE", 3)
    assert len(list(texts)) > 2
    assert extent(texts) == whole


def test_memory_stays_bounded_whatever_the_size_of_a_file(tmp_path: Path, monkeypatch):
    """A text of 6 MB, read to be measured, learned from and packed, never costs a megabyte."""
    monkeypatch.setattr(documents, "CHUNK", 1 << 14)
    monkeypatch.setattr(pieces, "PIECE", 1 << 14)
    line = "the quick brown fox jumps over the lazy dog.\n"
    (tmp_path / "large.txt").write_text(line * (6_000_000 // len(line)))
    files, tokenizer = in_files([tmp_path / "large.txt"], "data.files"), WordPiece(vocabulary_size=50)
    (tmp_path / "packed").mkdir()
    tokenizer.train([line])  # what the library imports is not counted
    tracemalloc.start()
    try:
        size = extent(files).characters
        pack(tmp_path / "packed", {"train": stretch(files, 0, size // 4)}, tokenizer)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(unpack(tmp_path / "packed")["train"]) > 300_000
    assert peak < 3_000_000
