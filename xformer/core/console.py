"""Sentences on the screen: an error, a note, metrics."""

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def error(sentence: str) -> None:
    """An error, on the error stream."""
    Console(stderr=True).print(f"[bold red]error:[/] {escape(sentence)}", soft_wrap=True, highlight=False)


def info(sentence: str) -> None:
    """Something worth knowing."""
    Console().print(escape(sentence), soft_wrap=True, highlight=False)


def metrics(values: Mapping[str, float | None], facts: Mapping[str, str]) -> None:
    """Metrics, and what they are of."""
    console = Console()
    table = Table()
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in values.items():
        table.add_row(name, "nan" if value is None else f"{value:.4f}")
    console.print(table)
    for name, fact in facts.items():
        console.print(f"[dim]{name:<11}[/]{escape(fact)}", soft_wrap=True, highlight=False)


def info_on_stderr(sentence: str) -> None:
    """Something worth knowing, on the error stream: the output is for what was asked for."""
    Console(stderr=True).print(f"[dim]{escape(sentence)}[/]", soft_wrap=True, highlight=False)
