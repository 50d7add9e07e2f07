"""Output for people: errors, information and metrics on the console."""

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def error(sentence: str) -> None:
    """Print an error on stderr."""
    Console(stderr=True).print(f"[bold red]error:[/] {escape(sentence)}", soft_wrap=True, highlight=False)


def info(sentence: str) -> None:
    """Print information on stdout."""
    Console().print(escape(sentence), soft_wrap=True, highlight=False)


def metrics(values: Mapping[str, float | None], about: Mapping[str, str]) -> None:
    """Print a table of metrics, and below it the data they were measured on."""
    console = Console()
    table = Table()
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in values.items():
        table.add_row(name, "nan" if value is None else f"{value:.4f}")
    console.print(table)
    for name, line in about.items():
        console.print(f"[dim]{name:<11}[/]{escape(line)}", soft_wrap=True, highlight=False)


def info_on_stderr(sentence: str) -> None:
    """Print information on stderr, so that stdout holds only the requested output."""
    Console(stderr=True).print(f"[dim]{escape(sentence)}[/]", soft_wrap=True, highlight=False)
