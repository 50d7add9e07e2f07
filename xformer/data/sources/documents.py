"""Documents that are read again and again, piece by piece, so that their size does not matter to memory."""

import codecs
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from xformer.errors import DataError
from xformer.tokenizers.pieces import pieces
from xformer.tokenizers.utf8 import refuse_others, unmarked

CHUNK = 1 << 20


class Piece(NamedTuple):
    """A part of a document that is not empty, and whether it is its last."""

    text: str
    last: bool


@runtime_checkable
class Documents(Protocol):
    """Iterating yields the pieces of the first document, then those of the second; one can iterate any time."""

    def __iter__(self) -> Iterator[Piece]: ...


class Extent(NamedTuple):
    """How long documents are, in characters, and a hash of what they say and where each ends."""

    characters: int
    content: str


class Texts:
    """Documents that are in memory.

    Args:
        texts: one each; empty ones are left out.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = list(texts)

    def __iter__(self) -> Iterator[Piece]:
        for text in self.texts:
            yield from document([text])


class Files:
    """Files in UTF-8, one document each; line ends stay as they are.

    Args:
        paths: in order.
        key: what names them in the configuration, for the errors.

    Raises:
        DataError: on iterating, a file that cannot be read, is empty or is not UTF-8.
    """

    def __init__(self, paths: Sequence[Path], key: str) -> None:
        self.paths, self.key = paths, key

    def __iter__(self) -> Iterator[Piece]:
        for path in self.paths:
            empty = True
            for piece in document(self._chunks(path)):
                empty = False
                yield piece
            if empty:
                raise DataError(f"{self.key}={path} is empty: give a file with text.")

    def _chunks(self, path: Path) -> Iterator[str]:
        decoder, read = codecs.getincrementaldecoder("utf-8")(), 0
        try:
            with path.open("rb") as file:
                while True:
                    chunk = file.read(CHUNK)
                    if not read:
                        refuse_others(chunk, f"{self.key}={path}")
                    pending = len(decoder.getstate()[0])
                    try:
                        yield decoder.decode(chunk, final=not chunk)
                    except UnicodeDecodeError as error:
                        where = f"{read - pending + error.start:,}"
                        raise DataError(f"{self.key}={path} is not UTF-8 at byte {where}: convert the file.") from error
                    if not chunk:
                        return
                    read += len(chunk)
        except OSError as error:
            raise DataError(f"{self.key}={path} cannot be read ({error.strerror}): make it readable.") from error


class Stretch:
    """A stretch of other documents; a document across its border is cut in two.

    Args:
        documents: all of them.
        first: the first character of the stretch, counted over all documents.
        last: the one after its last.
    """

    def __init__(self, documents: Documents, first: int, last: int) -> None:
        self.documents, self.first, self.last = documents, first, last

    def __iter__(self) -> Iterator[Piece]:
        begin = 0
        for text, ends in self.documents:
            if begin >= self.last:
                return
            inside = text[max(self.first - begin, 0) : self.last - begin]
            begin += len(text)
            if inside:
                yield Piece(inside, ends or begin >= self.last)


def document(chunks: Iterable[str]) -> Iterator[Piece]:
    """The pieces of one document that comes in chunks, without a byte order mark."""
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
    """Read documents once, to know how long they are and whether they have changed."""
    content, characters = hashlib.sha256(), 0
    for text, last in documents:
        content.update(text.encode("utf-8", errors="surrogatepass") + (b"\xff" if last else b""))
        characters += len(text)
    return Extent(characters, content.hexdigest())


def cut(documents: Documents, characters: int, fractions: Sequence[float]) -> list[Documents]:
    """Cut documents, in order, into a first part and one part per fraction.

    Args:
        documents: all of them.
        characters: how many they have.
        fractions: shares of the characters.
    """
    # Rounded before it is truncated: 1 - 0.9 is a little less than 0.1.
    borders = [int(round(characters * (1 - sum(fractions[i:])), 6)) for i in range(len(fractions))]
    return [Stretch(documents, first, last) for first, last in zip([0, *borders], [*borders, characters], strict=True)]
