"""Recorded runs, as `compare`, `report` and `reproduce` read them: configuration, summary and curve."""

import glob
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from xformer.config.groups import slots
from xformer.config.identity import (
    Value,
    flatten,
    settings_of_config,
    settings_of_overrides,
    short_name,
    with_warm_start_source,
)
from xformer.config.moved import new_config, new_overrides
from xformer.config.options import target_overrides
from xformer.errors import DataError
from xformer.runs.job import CONFIG_FILE, choices
from xformer.runs.metrics_table import FILE as METRICS_FILE
from xformer.runs.metrics_table import read_metrics
from xformer.runs.summary import FILE as SUMMARY_FILE
from xformer.runs.summary import NOT_ENDED, Summary, read_summary

_HYDRA = Path(".hydra") / "hydra.yaml"
_MARKS = (SUMMARY_FILE, CONFIG_FILE)
_LARGEST = 1e150
"""The largest value whose square, which intervals need, is finite."""
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C loader if available, ten times as fast
_NOT_RUNS = {".hydra", "wandb", "checkpoints"}


@dataclass(frozen=True)
class RecordedRun:
    """One run.

    Attributes:
        name: the path or name it was read from.
        settings: the settings that decide its result, without the seed (`xformer.config.identity`).
        summary: the run's summary, with status `running` if the run left none.
        directory: the run directory; None for a row of a committed table or a run read from W&B.
        whole: whether `settings` is the whole configuration, not only the typed overrides and choices.
    """

    name: str
    settings: Mapping[str, Value]
    summary: Summary
    directory: Path | None = None
    whole: bool = True

    @property
    def seed(self) -> int | None:
        """The seed of initialisation and data order."""
        return self.summary.seed

    def value(self, metric: str) -> float | None:
        """A final metric; None if it is missing or not finite."""
        value = self.summary.metrics.get(metric)
        return None if value is None or not abs(value) < _LARGEST else value

    def curve(self, metric: str) -> dict[int, float]:
        """The finite values logged during training, by optimiser step; empty if they are unknown.

        Raises:
            DataError: the table of metrics is damaged.
        """
        if self.directory is None or not (self.directory / METRICS_FILE).exists():
            return {}
        logged = read_metrics(self.directory, metric)
        return {row.step: row.value for row in logged if abs(row.value) < _LARGEST and row.step < _LARGEST}


def load_runs(paths: Iterable[str | Path]) -> list[RecordedRun]:
    """Read run directories, all runs below directories of sweeps, and all matches of patterns, each once.

    Raises:
        DataError: a path does not exist or contains no run.
    """
    directories: dict[Path, None] = {}
    for path in paths:
        matches = [Path(match) for match in sorted(glob.glob(str(path)))]
        # A pattern such as `sweep/*` also matches other files, such as Hydra's multirun.yaml.
        for match in [match for match in matches if match.is_dir() or match.name in _MARKS] or [Path(path)]:
            directories |= dict.fromkeys(run_directories(match))
    return [read_run(directory) for directory in directories]


def run_directories(path: Path) -> list[Path]:
    """The run directories at or below a path, sorted by name, with numbers by value.

    Raises:
        DataError: there are none.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; name run directories, the directory of a sweep, or a study.")
    if path.is_file():
        marks = [path] if path.name in _MARKS else []
    else:
        marks = [file for mark in _MARKS for file in path.rglob(mark)]
    found = {mark.parent for mark in marks if not _NOT_RUNS & {*mark.parent.relative_to(path.parent).parts}}
    found |= {mark.parents[1] for mark in path.rglob(str(_HYDRA))}
    if not found:
        raise DataError(f"{path} contains no run: a run directory has {SUMMARY_FILE} and {CONFIG_FILE}.")
    return sorted(found, key=lambda directory: [(len(part), part) for part in directory.parts])


def read_run(directory: Path) -> RecordedRun:
    """Read a run directory; a killed run of an earlier version may lack its summary.

    Raises:
        DataError: a file in it is damaged.
    """
    config = _yaml(directory / CONFIG_FILE)
    if config is not None and not (isinstance(config, dict) and "seed" in config):
        raise DataError(f"{directory / CONFIG_FILE} is not the configuration of a run: it has no seed.")
    if (directory / SUMMARY_FILE).exists():
        summary = read_summary(directory)
    else:
        with _reading(directory / _HYDRA):
            summary = _killed(_yaml(directory / _HYDRA), config)
    if config is None:
        settings = settings_of_overrides(summary.choices, summary.overrides)
    else:
        with _reading(directory / CONFIG_FILE):
            settings = settings_of(config, summary)
    return RecordedRun(
        str(directory),
        with_warm_start_source(settings, _warm_start_of(summary)),
        summary,
        directory,
        config is not None,
    )


def settings_of(config: Mapping[str, Any], summary: Summary) -> dict[str, Value]:
    """The settings of a run, from its resolved configuration and its summary."""
    config = new_config(config, summary.choices)
    return settings_of_config(config, summary.choices, target_overrides(flatten(config), summary), summary.ignored_keys)


def _warm_start_of(summary: Summary) -> Mapping[str, Any] | None:
    """The run that a warm start loaded from, in today's notation if the other run still exists."""
    warm_start = summary.warm_start
    if warm_start is None or summary.ignored_keys is not None:
        return warm_start
    other = Path(summary.started_in or ".", str(warm_start.get("run")))
    if not (other / CONFIG_FILE).exists():
        return warm_start
    return {**warm_start, "source": short_name(read_run(other).settings)}


def _killed(started: Any, config: Any) -> Summary:
    """The summary of an earlier version's run that left none, from the files that Hydra wrote before it started."""
    summary = Summary("running", error=NOT_ENDED)
    if started is not None:
        chosen = choices(started["hydra"]["runtime"]["choices"])
        # A run omits the slots that its architecture lacks; before it starts these are unknown.
        unused = {key for key in slots() if key not in config} if config else set()
        summary.choices = {key: option for key, option in chosen.items() if key not in unused}
        typed = [str(override) for override in started["hydra"]["overrides"]["task"]]
        summary.overrides = new_overrides(typed, summary.choices)
    values = dict(override.split("=", 1) for override in summary.overrides if "=" in override)
    seed = config["seed"] if config else values.get("seed")
    summary.seed = None if seed is None else int(seed)
    return summary


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn errors of a file's content into a `DataError`.

    Raises:
        DataError: naming the file.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        reason = " ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise DataError(f"{path} is not a valid file of a run ({reason}).") from error


def _yaml(path: Path) -> Any:
    """The values of a file, with interpolations unresolved; None if the file does not exist."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as stream:
            return yaml.load(stream, Loader=_Loader)
    except Exception as error:  # values out of Python's range raise various exceptions
        raise DataError(f"{path} is not a configuration: {str(error).splitlines()[0]}.") from error
