"""A bar that moves while something is measured, with the share done and the time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[..., None]]:
    """A function to call after each turn, and with words for what comes next where that changes.

    Args:
        total: how many turns there will be; fewer, where something turns out not to fit.
    """
    with Progress(transient=True) as progress:
        bar = progress.add_task("measuring", total=total)

        def on_progress(next_up: str | None = None) -> None:
            progress.update(bar, advance=0 if next_up else 1, description=next_up)

        yield on_progress
