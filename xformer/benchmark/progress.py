"""A progress bar of benchmarks, with the share done and the time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[..., None]]:
    """A context with a function to call after each turn, optionally with the name of what is measured next.

    Args:
        total: the number of turns; fewer may follow if some do not fit into memory.
    """
    with Progress(transient=True) as progress:
        bar = progress.add_task("measuring", total=total)

        def on_progress(next_up: str | None = None) -> None:
            progress.update(bar, advance=0 if next_up else 1, description=next_up)

        yield on_progress
