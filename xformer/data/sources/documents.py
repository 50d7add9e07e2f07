"""Re-readable documents in pieces, so that they need not fit in memory."""

import codecs
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from xformer.errors import DataError
from xformer.tokenizers.pieces import pieces, rereadable
from xformer.tokenizers.utf8 import refuse_others, unmarked

CHUNK = 1 << 20


class Piece(NamedTuple):
    """A non-empty piece of a document, and whether it is the last one."""

    text: str
    last: bool


Documents = Iterable[Piece]
"""The pieces of the first document, then those of the second; they can be read any number of times."""


class Extent(NamedTuple):
    """The length of documents in characters, and a hash of their content and boundaries."""

    characters: int
    content: str


@rereadable
def in_memory(texts: Iterable[str]) -> Iterator[Piece]:
    """Documents in memory; empty ones are left out."""
    for text in texts:
        yield from document([text])


@rereadable
def in_files(paths: Sequence[Path], key: str) -> Iterator[Piece]:
    """UTF-8 files, one document each; line ends are unchanged.

    Args:
        paths: in order.
        key: what names them in the configuration, for the errors.

    Raises:
        DataError: a file cannot be read, is empty or is not UTF-8.
    """
    for path in paths:
        empty = True
        for piece in document(_chunks(path, f"{key}={path}")):
            empty = False
            yield piece
        if empty:
            raise DataError(f"{key}={path} is empty: use a file with text.")


def _chunks(path: Path, name: str) -> Iterator[str]:
    decoder, read = codecs.getincrementaldecoder("utf-8")(), 0
    try:
        with path.open("rb") as file:
            while True:
                chunk = file.read(CHUNK)
                if not read:
                    refuse_others(chunk, name)
                pending = len(decoder.getstate()[0])
                try:
                    yield decoder.decode(chunk, final=not chunk)
                except UnicodeDecodeError as error:
                    where = f"{read - pending + error.start:,}"
                    raise DataError(f"{name} is not UTF-8 at byte {where}: convert the file.") from error
                if not chunk:
                    return
                read += len(chunk)
    except OSError as error:
        raise DataError(f"{name} cannot be read ({error.strerror}): make it readable.") from error


@rereadable
def stretch(documents: Documents, first: int, last: int) -> Iterator[Piece]:
    """A range of other documents; a document across its border is cut in two.

    Args:
        documents: all of them.
        first: the first character of the stretch, counted over all documents.
        last: the one after its last.
    """
    begin = 0
    for text, ends in documents:
        if begin >= last:
            return
        inside = text[max(first - begin, 0) : last - begin]
        begin += len(text)
        if inside:
            yield Piece(inside, ends or begin >= last)


def document(chunks: Iterable[str]) -> Iterator[Piece]:
    """The pieces of one document from its chunks, without a byte order mark."""
    before = None
    for text in pieces(_without_mark(chunks)):
        if before is not None:
            yield Piece(before, False)
        before = text
    if before is not None:
        yield Piece(before, True)


def _without_mark(chunks: Iterable[str]) -> Iterator[str]:
    begun = False
    for chunk in chunks:
        yield chunk if begun else unmarked(chunk)
        begun = begun or bool(chunk)


def extent(documents: Documents) -> Extent:
    """Measure and hash documents by reading them once."""
    content, characters = hashlib.sha256(), 0
    for text, last in documents:
        content.update(text.encode("utf-8", errors="surrogatepass") + (b"\xff" if last else b""))
        characters += len(text)
    return Extent(characters, content.hexdigest())


def framed(text: str) -> bytes:
    """A text's bytes after their number, so that several are hashed one after the other and stay apart."""
    encoded = text.encode("utf-8", errors="surrogatepass")
    return len(encoded).to_bytes(8, "little") + encoded


def cut_documents(documents: Documents, characters: int, fractions: Sequence[float]) -> list[Documents]:
    """Cut documents, in order, into a first part and one part per fraction.

    Args:
        documents: all of them.
        characters: how many they have.
        fractions: shares of the characters.
    """
    # Rounded before it is truncated: 1 - 0.9 is a little less than 0.1.
    borders = [int(round(characters * (1 - sum(fractions[i:])), 6)) for i in range(len(fractions))]
    return [stretch(documents, first, last) for first, last in zip([0, *borders], [*borders, characters], strict=True)]
