"""Decoding of UTF-8 text, with or without a byte order mark."""

import codecs

from xformer.errors import DataError

MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
_OTHERS = {
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),  # first, as its mark begins with that of UTF-16
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
_LOOKED_AT = 1000


def unmarked(text: str) -> str:
    """Remove the byte order mark that some editors write at the start of a file."""
    return text.removeprefix(MARK)


def decode_utf8(content: bytes, name: str) -> str:
    """Decode the bytes of a whole file.

    Raises:
        DataError: the file is not UTF-8; the message calls it `name`.
    """
    refuse_others(content, name)
    try:
        return unmarked(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 at byte {error.start:,}: convert the file.") from error


def refuse_others(begin: bytes, name: str) -> None:
    """Refuse UTF-16 and UTF-32, recognised by byte order marks or zero bytes, which would decode as UTF-8.

    Raises:
        DataError: the bytes, which a file begins with, are of one of these.
    """
    kind = next((kind for kind, marks in _OTHERS.items() if begin.startswith(marks)), None)
    head = begin[:_LOOKED_AT]
    if kind is None and len(head) > 3 and head.count(0) > len(head) / 4:
        kind = "UTF-32" if head.count(0) > len(head) * 0.6 else "UTF-16"
    if kind:
        raise DataError(f"{name} is {kind}, not UTF-8: convert the file, as with iconv -f {kind} -t UTF-8.")
