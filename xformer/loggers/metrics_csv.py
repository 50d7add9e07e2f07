"""The metrics of a run as a CSV table with one observation per row.

Lightning's CSVLogger has one wide row per call, mostly empty because training and validation log different names, keeps
the rows in memory and rewrites the file whenever a new name occurs. This table has six fixed columns, so rows are only
appended, a name logged once costs one row, and a killed run loses nothing.
"""

import csv
import io
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from xformer.loggers.base import RunLogger
from xformer.runs.metrics_table import FILE, Observation, read_metrics
from xformer.runs.storage import atomic_file, naming_file


class MetricsCSV(RunLogger):
    """Appends every logged metric to `metrics.csv` in the run directory, on the first process only.

    Each call is flushed to the operating system when it returns, and to the disk when the run ends. The names `epoch`
    and `tokens` become columns, not rows.

    Attributes:
        path: The table.
        rows: The number of rows.
    """

    def __init__(self, directory: Path):
        super().__init__()
        self.path = directory / FILE
        self.rows = 0
        self._epoch = 0
        self._tokens: int | None = None
        self._started = time.monotonic()

    @property
    def name(self) -> str:
        """The name of the logger."""
        return "csv"

    @property
    def version(self) -> None:
        """None: a run directory holds one table, and a progress bar has no version to show."""
        return None

    @rank_zero_only
    def start_at(self, step: int, rows: int | None = None) -> None:
        """Continue from optimiser step `step`: later rows are dropped, as they will be logged again.

        Args:
            step: Optimiser steps done, 0 for a run from the start.
            rows: The number of rows at that step; None if unknown, to keep those of earlier steps.
        """
        found = read_metrics(self.path) if self.path.exists() else []
        kept = [row for row in found if row.step < step] if rows is None else found[:rows]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.path) as file:
            file.write(_text(kept, header=True).encode())
        self.rows = len(kept)
        last = kept[-1] if kept else Observation(0, 0, None, 0.0, "", 0.0)
        self._epoch, self._tokens = last.epoch, last.tokens
        self._started = time.monotonic() - last.seconds

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one row per metric, under Lightning's step."""
        values = {name: float(value) for name, value in metrics.items()}
        self._epoch = int(values.pop("epoch", self._epoch))
        if "tokens" in values:
            self._tokens = int(values.pop("tokens"))
        seconds = time.monotonic() - self._started
        rows = [
            Observation(step or 0, self._epoch, self._tokens, seconds, name, value) for name, value in values.items()
        ]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with naming_file(self.path), self.path.open("a", newline="", encoding="utf-8") as stream:
            stream.write(_text(rows, header=stream.tell() == 0))
        self.rows += len(rows)

    @rank_zero_only
    def log_hyperparams(self, params: Any = None, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run directory holds the configuration."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Flush the table to disk."""
        if self.path.exists():
            with self.path.open("a", encoding="utf-8") as stream:
                os.fsync(stream.fileno())


def _text(rows: list[Observation], *, header: bool) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream)
    if header:
        writer.writerow(Observation._fields)
    for row in rows:
        writer.writerow([row.step, row.epoch, row.tokens, f"{row.seconds:.3f}", row.metric, row.value])
    return stream.getvalue()
