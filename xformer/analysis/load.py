"""Runs as `compare`, `report` and `reproduce` see them: a configuration, a summary, and where the curve is."""

import glob
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from xformer.analysis.settings import Value, of_config, of_overrides, started_from
from xformer.build import CONFIG_FILE
from xformer.configuration import slots
from xformer.errors import DataError
from xformer.job import choices
from xformer.logging.metrics_csv import FILE as METRICS_FILE
from xformer.logging.metrics_csv import read_metrics, series
from xformer.record.summary import FILE as SUMMARY_FILE
from xformer.record.summary import NOT_ENDED, Summary, read_summary

_HYDRA = Path(".hydra") / "hydra.yaml"
_MARKS = (SUMMARY_FILE, CONFIG_FILE)
_NOT_RUNS = {".hydra", "wandb", "checkpoints"}


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        name: where it was read from.
        settings: what decides its result but for the seed (`xformer.analysis.settings`).
        summary: how it ended; `running` where a run left none that says so.
        directory: the run directory; None for a row of a committed table or a run read from W&B.
        whole: whether `settings` is all of the configuration, and not only what was typed and chosen.
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
        """A final metric; None where the run has none, or where it was not finite."""
        return self.summary.metrics.get(metric)

    def curve(self, metric: str) -> dict[int, float]:
        """The values logged while training, by optimiser step; empty where they are not known."""
        if self.directory is None or not (self.directory / METRICS_FILE).exists():
            return {}
        return dict(series(read_metrics(self.directory)).get(metric, []))


def load_runs(paths: Iterable[str | Path]) -> list[Run]:
    """Read run directories, all below directories of sweeps, and whatever a pattern matches, each once.

    Raises:
        DataError: a path is not there, or holds no run.
    """
    directories: dict[Path, None] = {}
    for path in paths:
        matches = [Path(match) for match in sorted(glob.glob(str(path)))]
        # A pattern such as `sweep/*` also matches what else lies there, as Hydra's multirun.yaml.
        for match in [match for match in matches if match.is_dir() or match.name in _MARKS] or [Path(path)]:
            directories |= dict.fromkeys(run_directories(match))
    return [read_run(directory) for directory in directories]


def run_directories(path: Path) -> list[Path]:
    """The run directories at or below a path, in the order of their names, numbers by value.

    Raises:
        DataError: there is none.
    """
    if not path.exists():
        raise DataError(f"{path} is not there: give run directories, the directory of a sweep, or a study's name.")
    if path.is_file():
        marks = [path] if path.name in _MARKS else []
    else:
        marks = [file for mark in _MARKS for file in path.rglob(mark)]
    found = {mark.parent for mark in marks if not _NOT_RUNS & {*mark.parent.relative_to(path.parent).parts}}
    found |= {mark.parents[1] for mark in path.rglob(str(_HYDRA))}
    if not found:
        raise DataError(f"{path} holds no run: a run directory has {SUMMARY_FILE} and {CONFIG_FILE}.")
    return sorted(found, key=lambda directory: [(len(part), part) for part in directory.parts])


def read_run(directory: Path) -> Run:
    """Read a run directory; one of an earlier version has no summary if it was killed.

    Raises:
        DataError: a file in it is damaged.
    """
    config = _yaml(directory / CONFIG_FILE)
    if config is not None and not (isinstance(config, dict) and "seed" in config):
        raise DataError(f"{directory / CONFIG_FILE} is not the configuration of a run: it has no seed.")
    if (directory / SUMMARY_FILE).exists():
        summary = read_summary(directory)
    else:
        summary = _killed(_yaml(directory / _HYDRA), config)
    if config is None:
        settings = of_overrides(summary.choices, summary.overrides)
    else:
        settings = of_config(config, summary.choices)
    return Run(str(directory), started_from(settings, summary.inherited), summary, directory, config is not None)


def _killed(started: Any, config: Any) -> Summary:
    """What is known of an earlier version's run that left no summary, from what Hydra wrote before it began."""
    summary = Summary("running", error=NOT_ENDED)
    if started is not None:
        chosen = choices(started["hydra"]["runtime"]["choices"])
        # A run leaves out the slots that its architecture has not; before it began, nobody knows which.
        unused = {key for key in slots() if key not in config} if config else set()
        summary.choices = {key: option for key, option in chosen.items() if key not in unused}
        summary.overrides = [str(override) for override in started["hydra"]["overrides"]["task"]]
    typed = dict(override.split("=", 1) for override in summary.overrides if "=" in override)
    summary.seed = config["seed"] if config else int(typed["seed"]) if "seed" in typed else None
    return summary


def _yaml(path: Path) -> Any:
    if not path.exists():
        return None
    try:
        return OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except Exception as error:
        raise DataError(f"{path} is not a configuration: {str(error).splitlines()[0]}.") from error
