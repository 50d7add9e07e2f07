"""Streams of text that can be read repeatedly, cut into pieces at places where cutting changes no token."""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial, wraps
from typing import Generic, ParamSpec, TypeVar

PIECE = 1 << 20
LONGEST = 1 << 24
# After a line's end: before a visible character that follows a visible line, or before a space and a visible character.
SEAM = re.compile(r"(?<=\S\n)(?=\S)|(?<=\n)(?= \S)")

Parameters = ParamSpec("Parameters")
Item = TypeVar("Item")


class _Rereadable(Generic[Item]):
    def __init__(self, read: Callable[[], Iterator[Item]]) -> None:
        self.read = read

    def __iter__(self) -> Iterator[Item]:
        return self.read()


def rereadable(read: Callable[Parameters, Iterator[Item]]) -> Callable[Parameters, Iterable[Item]]:
    """Decorator: a generator function returns an iterable that restarts whenever it is iterated."""

    @wraps(read)
    def described(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Iterable[Item]:
        return _Rereadable(partial(read, *args, **kwargs))

    return described


def pieces(chunks: Iterable[str]) -> Iterator[str]:
    """Join the chunks of one text, and cut it at line ends that no tokenizer's tokens cross.

    Where the cuts fall depends on the text alone, not on its chunks.

    Args:
        chunks: the text, in any portions.

    Yields:
        Non-empty pieces of `PIECE` characters and the rest of a line; what has no such line end within `LONGEST`
        characters is cut there.
    """
    buffer = ""
    for chunk in chunks:
        buffer += chunk
        while (end := _end(buffer)) is not None:
            yield buffer[:end]
            buffer = buffer[end:]
    if buffer:
        yield buffer


def _end(buffer: str) -> int | None:
    """The end of the first piece of a buffer; None if more text is needed first."""
    seam = SEAM.search(buffer, PIECE) if len(buffer) > PIECE else None
    if seam is not None and seam.start() <= LONGEST:
        return seam.start()
    # The two characters after a seam decide whether it is one.
    return LONGEST if len(buffer) > LONGEST + 2 else None
