"""Python's own help texts, whole or by chapter: text without a download."""

from collections import Counter

CHAPTERS = 8
_SHORTEST = 40
"""Characters of a paragraph that counts as one; shorter ones are headings and the like."""


def prose() -> list[str]:
    """Python's help topics in the order of their names; repeated paragraphs appear once.

    Topics quote one another: kept as they are, a tenth of what is held out would stand in the training text word for
    word. What is there depends on the version of Python.
    """
    from pydoc_data.topics import topics

    seen: set[str] = set()
    return [_once(topics[name], seen) for name in sorted(topics)]


def _once(text: str, seen: set[str]) -> str:
    kept = []
    for paragraph in text.split("\n\n"):
        plain = _plain(paragraph)
        if len(plain) < _SHORTEST or plain not in seen:
            kept.append(paragraph)
        seen.add(plain)
    return "\n\n".join(kept)


def chapters() -> list[tuple[str, str]]:
    """Paragraphs of the longest chapters, and the chapter of each.

    A paragraph that stands in several chapters is left out: it has no one label. What is there depends on the version
    of Python.
    """
    from pydoc_data.topics import topics

    found = [(_plain(part), name) for name in sorted(topics) for part in topics[name].split("\n\n")]
    found = [(paragraph, name) for paragraph, name in found if len(paragraph) >= _SHORTEST]
    copies = Counter(paragraph for paragraph, _ in found)
    single = [(paragraph, name) for paragraph, name in found if copies[paragraph] == 1]
    longest = {name for name, _ in Counter(name for _, name in single).most_common(CHAPTERS)}
    return [(paragraph, name) for paragraph, name in single if name in longest]


def _plain(text: str) -> str:
    return " ".join(text.split())
