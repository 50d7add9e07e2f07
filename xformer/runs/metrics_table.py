"""Reading a run's table of metrics, `metrics.csv`, with one observation per row."""

import csv
from pathlib import Path
from typing import NamedTuple

from xformer.errors import DataError

FILE = "metrics.csv"


class Observation(NamedTuple):
    """One row of the table.

    Attributes:
        step: Optimiser steps completed before the step that logged, as Lightning counts them: 0 is the first.
        epoch: Epochs completed before.
        tokens: Tokens trained on without padding, as last logged under `tokens`; None before that.
        seconds: Seconds of training, over all resumptions.
        metric: The name as logged.
        value: The value; may be NaN or infinite.
    """

    step: int
    epoch: int
    tokens: int | None
    seconds: float
    metric: str
    value: float


def read_metrics(path: Path, metric: str | None = None) -> list[Observation]:
    """Read a table; a row for a metric and step that were logged before replaces the earlier row.

    A last line that a crash cut off is ignored.

    Args:
        path: The table, or the run directory that holds it.
        metric: Read only the rows of this metric, which is faster; None for all.

    Raises:
            DataError: The table is missing or malformed.
    """
    path = path / FILE if path.is_dir() else path
    rows: dict[tuple[int, str], Observation] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"There is no table of metrics at {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a table of metrics: {error}.") from error
    lines = text[: text.rfind("\n") + 1].splitlines()
    if not lines or lines[0] != ",".join(Observation._fields):
        raise DataError(f"{path} is not a table of metrics: its first line must be {','.join(Observation._fields)}.")
    for number, line in enumerate(lines[1:], start=2):
        quoted = '"' in line  # as names with a comma are
        if not (quoted or metric is None or metric in line):
            continue
        try:
            row = _observation(*(next(csv.reader([line])) if quoted else line.split(",")))
        except (TypeError, ValueError, csv.Error) as error:
            raise DataError(f"{path}, line {number} is not an observation: {error}.") from error
        if metric is None or row.metric == metric:
            rows.pop((row.step, row.metric), None)
            rows[row.step, row.metric] = row
    return list(rows.values())


def series(rows: list[Observation]) -> dict[str, list[tuple[int, float]]]:
    """The rows by metric, as (step, value) in the order logged."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        curves.setdefault(row.metric, []).append((row.step, row.value))
    return curves


def _observation(step: str, epoch: str, tokens: str, seconds: str, metric: str, value: str) -> Observation:
    return Observation(int(step), int(epoch), int(tokens) if tokens else None, float(seconds), metric, float(value))
