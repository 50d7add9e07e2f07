"""Streaming text: decode tokens as they are generated, yielding a character only once it is complete."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


def stream_text(
    decode: Callable[[Sequence[int]], str], tokens: Iterable[int], begin: Sequence[int] = ()
) -> Iterator[str]:
    """Yield the text of tokens piece by piece; joined, the pieces are the text of all tokens.

    A character whose bytes are incomplete decodes to replacement characters. These are held back until more tokens
    follow, as is text that would contradict the pieces yielded before.

    Args:
        decode: decodes a whole sequence.
        tokens: the ids, as they are generated.
        begin: ids before them, whose text is the first piece.
    """
    sequence, shown = list(begin), ""
    for token in itertools.chain([None], tokens):
        if token is not None:
            sequence.append(token)
        stable = decode(sequence).rstrip(_INCOMPLETE)
        if len(stable) > len(shown) and stable.startswith(shown):
            yield stable[len(shown) :]
            shown = stable
    rest = decode(sequence)[len(shown) :]
    if rest:
        yield rest
