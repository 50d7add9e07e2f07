"""Paragraphs of the prose that every Python ships, and the chapter each is from: labelled text without a download."""

from collections import Counter

from xformer.data.sources.tables import Columns

CHAPTERS = 8
_SHORTEST = 40


def chapters() -> Columns:
    """The paragraphs of the chapters that have most, as `text_column` and `label_column`.

    A paragraph that stands in several chapters is left out: it has no one label. What is there depends on the version
    of Python.
    """
    from pydoc_data.topics import topics

    found = [(_plain(part), name) for name in sorted(topics) for part in topics[name].split("\n\n")]
    found = [(paragraph, name) for paragraph, name in found if len(paragraph) >= _SHORTEST]
    copies = Counter(paragraph for paragraph, _ in found)
    single = [(paragraph, name) for paragraph, name in found if copies[paragraph] == 1]
    longest = {name for name, _ in Counter(name for _, name in single).most_common(CHAPTERS)}
    kept = [(paragraph, name) for paragraph, name in single if name in longest]
    return {"text_column": [text for text, _ in kept], "label_column": [name for _, name in kept]}


def _plain(text: str) -> str:
    return " ".join(text.split())
