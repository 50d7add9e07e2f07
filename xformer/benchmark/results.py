"""Results of a benchmark: a table on the screen, CSV and JSON files, and a plot."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from xformer.runs.provenance import hardware, package_versions

COMPARED = ("transformers", "x-transformers", "local-attention", "linformer", "performer-pytorch", "zeus")
"""Packages compared or used in benchmarks, besides those that every run records."""
_WIDTH = 140
"""The width of a table that is written to a file."""
Row = dict[str, Any]
"""One line of a table, by column."""


@dataclass(frozen=True)
class Results:
    """The results of one benchmark.

    Attributes:
        question: the benchmark's name.
        rows: all measurements.
        shown: the columns of the tables on the screen, each with its heading and the format of its numbers.
        split: columns of which each combination has a table of its own, under their values.
        plot: draws the rows into a file; None without a plot.
        notes: sentences under the table.
        settings: the settings of the run.
        absent: the text that tables show for a missing number.
    """

    question: str
    rows: Sequence[Row]
    shown: dict[str, tuple[str, str]]
    split: Sequence[str] = ()
    plot: Callable[[Sequence[Row], Path], None] | None = None
    notes: Sequence[str] = field(default=())
    settings: Mapping[str, Any] = field(default_factory=dict)
    absent: str = "not exposed"

    def print(self) -> None:
        """Print the tables, the machine and the notes."""
        machine, console = hardware(), Console()
        if not console.is_terminal:
            console.width = max(console.width, _WIDTH)
        device = machine["cuda"][0] if machine["cuda"] else f"{machine['cpu']}, {machine['torch_threads']} threads"
        console.print(f"{device}, torch {package_versions()['torch']}", highlight=False)
        compared = ", ".join(f"{name} {version}" for name, version in compared_versions().items())
        console.print(f"installed peers: {compared or 'nothing'}", highlight=False, soft_wrap=True)
        for values in dict.fromkeys(tuple(row[column] for column in self.split) for row in self.rows):
            table = Table(title=self._title(values), title_justify="left")
            rows = [row for row in self.rows if tuple(row[column] for column in self.split) == values]
            cells = [[self._written(row.get(column), form) for column, (_, form) in self.shown.items()] for row in rows]
            for (heading, form), column in zip(self.shown.values(), zip(*cells, strict=True), strict=True):
                words = " ".join([heading, *column]).split()  # a narrow table breaks its lines between words
                table.add_column(heading, justify="right" if form else "left", min_width=max(map(len, words)))
            for line in cells:
                table.add_row(*line)
            console.print(table)
        for sentence in self.notes:
            console.print(sentence, highlight=False, soft_wrap=True)
        short = [f"{key} {value}" for key, value in self.settings.items() if isinstance(value, str | int | float)]
        if short:
            console.print(f"Settings: {', '.join(short)}; the JSON has all.", highlight=False, soft_wrap=True)

    def _title(self, values: tuple[object, ...]) -> str | None:
        return ", ".join(f"{column} {value}" for column, value in zip(self.split, values, strict=True)) or None

    def _written(self, value: Any, form: str) -> str:
        if value is None:
            return self.absent
        return format(value, form) if form else str(value)

    def save(self, directory: Path) -> list[Path]:
        """Write the CSV, the JSON with the machine and the versions, and the picture; returns their paths."""
        directory.mkdir(parents=True, exist_ok=True)
        table, record = directory / f"{self.question}.csv", directory / f"{self.question}.json"
        columns = list(dict.fromkeys(column for row in self.rows for column in row))
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)
        content = {
            "question": self.question,
            "settings": dict(self.settings),
            "hardware": hardware(),
            "versions": package_versions() | compared_versions(),
            "notes": list(self.notes),
            "rows": list(self.rows),
        }
        record.write_text(json.dumps(content, indent=1), encoding="utf-8")
        if self.plot is None:
            return [table, record]
        picture = directory / f"{self.question}.png"
        self.plot(self.rows, picture)
        return [table, record, picture]


def compared_versions() -> dict[str, str]:
    """The versions of the packages in `COMPARED` that are installed."""
    return {
        distribution.name: distribution.version
        for name in COMPARED
        for distribution in metadata.distributions(name=name)
    }
