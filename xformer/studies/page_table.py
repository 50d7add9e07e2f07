"""Tables of an HTML page: sorted by a click on a title, and on a phone a card for each row."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        shown: its text.
        value: what it is sorted by; None for its text.
        below: a second line.
        hover: what is shown under the pointer.
        text: whether it is text, which may be wrapped and stands at the left, and no number.
        mark: `better` or `worse`.
    """

    shown: str
    value: float | int | str | None = None
    below: str = ""
    hover: str = ""
    text: bool = False
    mark: str = ""


def html_table(titles: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table of cells; the first column names the row."""
    texts = [any(cell.text for cell in column) for column in zip(*rows, strict=True)] or [False] * len(titles)
    head = "".join(
        f'<th scope="col" role="columnheader"{" class=text" if text else ""}><button>{escape(title)}</button></th>'
        for title, text in zip(titles, texts, strict=True)
    )
    body = "".join(f'<tr role="row">{_cells(titles, row)}</tr>' for row in rows)
    return (
        f'<table role="table"><thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{body}</tbody></table>'
    )


def plain_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts."""
    return html_table(titles, [[Cell(text, text=True) for text in row] for row in rows])


def _cells(titles: Sequence[str], row: Sequence[Cell]) -> str:
    return "".join(_cell(title, cell, not i) for i, (title, cell) in enumerate(zip(titles, row, strict=True)))


def _cell(title: str, cell: Cell, first: bool) -> str:
    tag = "th" if first else "td"
    value = cell.shown if cell.value is None else str(cell.value)
    classes = " ".join(filter(None, ("text" if cell.text else "", cell.mark)))
    attributes = {
        "scope": "row" if first else "", "role": "rowheader" if first else "cell", "class": classes,
        "title": cell.hover, "data-label": title,
    }  # fmt: skip
    written = "".join(f' {key}="{escape(text, quote=True)}"' for key, text in attributes.items() if text)
    below = f"<small>{escape(cell.below)}</small>" if cell.below else ""
    return f'<{tag}{written} data-value="{escape(value, quote=True)}"><span>{escape(cell.shown)}{below}</span></{tag}>'
