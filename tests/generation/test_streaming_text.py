"""Text that is shown while it is written."""

import pytest

from xformer.generation.streaming_text import stream_text
from xformer.tokenizers.byte import Byte


@pytest.mark.parametrize("text", ["", "plain", "Käse für 5 €", "日本 🙂🙂!", "🙂"])
@pytest.mark.parametrize("begin", [0, 1, 3])
def test_no_half_character_is_shown_and_nothing_is_lost(text: str, begin: int) -> None:
    tokenizer = Byte()
    ids = tokenizer.encode(text).tolist()
    pieces = list(stream_text(tokenizer.decode, ids[begin:], ids[:begin]))
    assert "".join(pieces) == text
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
    assert all(pieces)


def test_every_piece_comes_as_early_as_it_can() -> None:
    taken = []

    def tokens():
        for token in "aé€".encode():
            taken.append(token)
            yield token

    shown = [(piece, len(taken)) for piece in stream_text(Byte().decode, tokens())]
    assert shown == [("a", 1), ("é", 3), ("€", 6)]


@pytest.mark.parametrize("broken", [b"a\xe2\x82", b"a\xff", b"\xffb", b"\xe2b\xe2"])
def test_bytes_that_never_become_a_character_are_shown_at_the_end_or_when_something_follows(broken: bytes) -> None:
    assert "".join(stream_text(Byte().decode, list(broken))) == broken.decode(errors="replace")


def test_a_decoder_that_changes_its_mind_is_shown_from_where_it_settles() -> None:
    def decode(ids):
        return {0: "", 1: "it '", 2: "it's", 3: "it's a"}[len(ids)]

    assert list(stream_text(decode, [5, 6, 7])) == ["it '", " a"]
