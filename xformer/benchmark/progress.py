"""A bar that moves while something is measured."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress


@contextmanager
def measuring() -> Iterator[Callable[..., None]]:
    """A function to call after each measurement, with words for what comes next where that changes."""
    with Progress(transient=True) as progress:
        bar = progress.add_task("measuring", total=None)

        def told(next_up: str | None = None) -> None:
            progress.update(bar, advance=1, description=next_up)

        yield told
