"""The prose that every Python ships: text without a download."""

_SHORTEST = 40
"""Characters of a paragraph that must not stand twice; shorter ones are headings and the like."""


def prose() -> list[str]:
    """Python's help topics in the order of their names, each paragraph where it stands first.

    Topics quote one another: kept as they are, a tenth of what is held out would stand in the training text word for
    word. What is there depends on the version of Python.
    """
    from pydoc_data.topics import topics

    seen: set[str] = set()
    return [_once(topics[name], seen) for name in sorted(topics)]


def _once(text: str, seen: set[str]) -> str:
    kept = []
    for paragraph in text.split("\n\n"):
        plain = " ".join(paragraph.split())
        if len(plain) < _SHORTEST or plain not in seen:
            kept.append(paragraph)
        seen.add(plain)
    return "\n\n".join(kept)
