"""Python's prose: what is held out of it is not in the training text."""

from xformer.data.sources.prose import prose


def paragraphs(texts: list[str]) -> list[str]:
    return [" ".join(part.split()) for text in texts for part in text.split("\n\n")]


def test_no_paragraph_stands_twice_and_none_is_lost() -> None:
    from pydoc_data.topics import topics

    kept = [part for part in paragraphs(prose()) if len(part) >= 40]
    assert len(kept) == len(set(kept))
    whole = paragraphs([topics[name] for name in sorted(topics)])
    assert set(kept) == {part for part in whole if len(part) >= 40}
    assert len(whole) > 1.1 * len(paragraphs(prose()))


def test_the_order_is_that_of_the_topics() -> None:
    from pydoc_data.topics import topics

    assert len(prose()) == len(topics)
    assert prose()[0] == topics[min(topics)]
