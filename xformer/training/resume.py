"""Resuming: decides whether a run may continue, skip or must refuse a directory that was used before."""

import logging
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf

from xformer.config.identity import changes_result, flatten, key_of, override_value, without_ignored_keys
from xformer.config.ignored_keys import find_ignored_keys
from xformer.config.options import with_current_targets
from xformer.config.plan import Plan
from xformer.config.plugins import require_plugins
from xformer.config.redact import MASK, resolved_config
from xformer.core.devices import is_main_process
from xformer.errors import ConfigError, DataError, RunError
from xformer.loggers.metrics_csv import MetricsCSV
from xformer.optimization.schedule import Schedule
from xformer.runs import checkpoints
from xformer.runs.job import CONFIG_FILE, Job
from xformer.runs.lock import is_empty
from xformer.runs.metrics_table import FILE as METRICS_FILE
from xformer.runs.recorded_run import read_run
from xformer.runs.summary import FILE, Summary, read_summary

log = logging.getLogger(__name__)
MAY_GROW = ("trainer.max_steps", "trainer.max_epochs")
MAY_CHANGE = (
    "trainer.devices", "trainer.num_nodes", "trainer.accelerator", "trainer.strategy", "trainer.max_time",
    "callbacks.exact_resume", "compile",
)  # fmt: skip
"""What a resumed run may have otherwise, beside what is no part of a run's settings (`xformer.config.identity`): how
it is started, watched and stored."""
_MOST_NAMED = 3
_UNLIMITED = (None, -1)


@dataclass(frozen=True)
class ResumePoint:
    """The checkpoint and position from which a run continues.

    Attributes:
        checkpoint: the file.
        step: optimiser steps done.
        rows: the number of rows of the metrics table before it; None if not saved.
        processes: the number of processes that saved their random state; None if not saved.
    """

    checkpoint: Path
    step: int
    rows: int | None
    processes: int | None


# What is typed


def expand_resume(words: Sequence[str]) -> list[str]:
    """Expand `resume=DIR` in a command line: that run's overrides and directory, then whatever else was typed.

    The run's relative paths refer to the directory where it was started; this becomes the working directory if it still
    exists.

    Raises:
        RunError: DIR is not a run directory.
        ConfigError: `resume` is combined with -m or hydra.run.dir, or a plugin of the run is not installed and named.
    """
    asked = [word for word in words if word.startswith("resume=")]
    name = asked[-1].partition("=")[2].strip("'\"") if asked else ""
    if name.lower() in ("", "true", "false"):
        return list(words)
    directory = Path(name).resolve()
    rest = [word for word in words if word not in asked]
    if {"-m", "--multirun"} & {*rest}:
        raise ConfigError(f"resume={name} continues one run: leave -m out.")
    if any(word.startswith("hydra.run.dir=") for word in rest):
        raise ConfigError(f"resume={name} names the directory: leave hydra.run.dir out, or say resume=true.")
    if not any((directory / file).exists() for file in (FILE, CONFIG_FILE)):
        what = "holds no run" if directory.is_dir() else "is not a directory"
        raise RunError(f"resume={name} {what}: use the directory of the run to continue.")
    summary = read_run(directory).summary
    require_plugins(summary.plugins, f"resume={name}")
    typed = {key_of(word) for word in rest}
    unheard = tuple(f"{key}." for key in typed if not changes_result(key))  # of another logger than the one chosen now
    saved = [
        override
        for override in summary.overrides
        if key_of(override) not in typed | {"resume"} and not key_of(override).startswith(unheard)
    ]
    hidden = [key_of(override) for override in saved if MASK in override]
    if hidden:
        raise ConfigError(f"resume={name}: {hidden[0]} is a secret and was not stored with the run: pass it again.")
    _enter(summary.started_in)
    quoted = str(directory).replace("'", "\\'")
    place = words.index(asked[-1]) - sum(word in asked for word in words[: words.index(asked[-1])])
    added = [*saved, "resume=true", f"hydra.run.dir='{quoted}'", "hydra.mode=RUN"]
    return [*rest[:place], *added, *rest[place:]]


def _enter(directory: str | None) -> None:
    if directory is not None and Path(directory).is_dir():
        script = Path(sys.argv[0])
        if script.exists():  # a strategy may start it again
            sys.argv[0] = str(script.resolve())
        os.chdir(directory)


# What is there


class Earlier:
    """The state an earlier run left in a job's directory, read lazily; nothing is changed.

    Args:
        job: a job with a valid configuration.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.directory = job, job.directory
        self.resumes, self.skips = bool(job.config.resume), bool(job.config.skip_finished)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The earlier run's configuration.

        Raises:
            RunError: the file is damaged.
        """
        file = self.directory / CONFIG_FILE
        try:
            found = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        except (yaml.YAMLError, OSError, ValueError):
            found = None
        if not isinstance(found, dict):
            raise RunError(f"{file} is damaged, so the earlier run's configuration is unknown; move it away.")
        return {str(key): value for key, value in found.items()}

    @cached_property
    def summary(self) -> Summary:
        """The earlier run's summary, or a minimal one if it left none."""
        return read_run(self.directory).summary

    @cached_property
    def asked(self) -> dict[str, Any]:
        """The new job's configuration, resolved."""
        return resolved_config(self.job.config)

    def finished(self) -> Summary | None:
        """The summary of an earlier run that already finished, so that nothing is left to run; else None.

        Raises:
            RunError: the directory holds a run of another configuration, which would be taken for this one.
        """
        if not (self.resumes or self.skips) or not (self.directory / CONFIG_FILE).exists():
            return None
        if not self.resumes and not self._trained():
            return None  # so it cannot be mistaken for this run
        self._refuse_another()
        if not (self.directory / FILE).exists():
            return None
        done = _is_over(self.summary) if not self.resumes else self.summary.status == "finished"
        return self.summary if done and not (self.resumes and self._is_longer()) else None

    def start(self) -> ResumePoint | None:
        """The point to continue from: `resume` requires a checkpoint, `skip_finished` uses one if it exists.

        Raises:
            RunError: there is no checkpoint to resume from, or files in the directory would be overwritten.
        """
        newest = next(checkpoints.readable_checkpoints(self.directory), None) if self.resumes or self.skips else None
        if newest is None and self.resumes:
            raise RunError(
                f"resume=true found no readable checkpoint in hydra.run.dir={self.directory}; use the directory of "
                "the run to continue, or leave resume out to start one."
            )
        if newest is not None:
            file, content = newest
            if not (self.directory / CONFIG_FILE).exists():
                raise RunError(f"{self.directory} has no {CONFIG_FILE}, so the earlier run's configuration is unknown.")
            saved = content.get("exact_resume", {})
            processes = len(saved["random"]) if "random" in saved else None
            return ResumePoint(file, content["global_step"], saved.get("rows"), processes)
        if self.skips and checkpoints.find_checkpoints(self.directory):
            log.warning("%s has no checkpoint that can be read: this run starts again.", self.directory)
        if is_main_process():  # what the others find there may be the main process's own
            self._refuse_to_overwrite()
        return None

    def check(self, start: ResumePoint | None, plan: Plan, trainer: Trainer) -> str | None:
        """Check data and processes against the checkpoint; return a warning if the learning-rate schedule changes.

        Raises:
            RunError: the data or the number of processes differ from those of the run.
        """
        if start is None:
            return None
        known, found = self.summary.data_fingerprint, plan.data.fingerprint
        if known not in (None, found):
            raise RunError(
                f"resume: {self.directory} was trained on other data (fingerprint {known}, now "
                f"{found}); restore the data it was trained on."
            )
        if self.job.config.callbacks.get("exact_resume") is not None and start.processes != trainer.world_size:
            by = f"by {start.processes} processes" if start.processes else "without its place in the data"
            raise RunError(
                f"{start.checkpoint.name} was saved {by} and cannot be resumed exactly by {trainer.world_size}; use as "
                "many, or set callbacks.exact_resume=null to continue with batches in another order."
            )
        return self._changed_schedule(start, plan.schedule)

    def _changed_schedule(self, start: ResumePoint, schedule: Schedule) -> str | None:
        """A warning that a longer run changes a learning-rate schedule already under way; None if it does not."""
        was, now = (_value(config, "trainer.max_steps") for config in (self.config, self.asked))
        if was in _UNLIMITED or now in _UNLIMITED:
            return None
        before, after = schedule(start.step, was), schedule(start.step, now)
        if before == after:
            return None
        return (
            f"schedule={self.job.choices.get('schedule')} depends on trainer.max_steps: at step {start.step:,} the "
            f"learning rate was {before:.4g} of its peak for {was:,} steps and is {after:.4g} for {now:,}, so this is "
            f"not the run that {now:,} steps from the start would be."
        )

    def _refuse_to_overwrite(self) -> None:
        if is_empty(self.directory):
            return
        if not self.skips:  # it starts again if no checkpoint is readable
            checkpoints.check_not_overwriting(self.directory)
        if not any((self.directory / file).exists() for file in (FILE, CONFIG_FILE)):
            names = sorted(entry.name for entry in self.directory.iterdir())
            raise RunError(
                f"hydra.run.dir={self.directory} holds files that are not a run's ({', '.join(names[:_MOST_NAMED])}); "
                "use a new directory, or an empty one."
            )
        if (self.directory / CONFIG_FILE).exists():
            _ = self.config  # which raises where it is damaged
        try:
            finished = self.summary.status == "finished"
        except DataError as error:
            raise RunError(f"{str(error).rstrip('.')}; use another hydra.run.dir.") from error
        if finished:
            raise RunError(
                f"hydra.run.dir={self.directory} holds a finished run; use another hydra.run.dir, or "
                "skip_finished=true to keep its result."
            )
        if self._trained():
            self._refuse_another()

    def _trained(self) -> bool:
        """Whether the earlier run logged a metric, saved a checkpoint or finished."""
        if checkpoints.find_checkpoints(self.directory):
            return True
        if (self.directory / FILE).exists() and _is_over(read_summary(self.directory)):
            return True
        metrics = self.directory / METRICS_FILE
        return metrics.exists() and metrics.read_bytes().count(b"\n") > 1

    def _refuse_another(self) -> None:
        """Refuse to continue a run with another configuration."""
        old, new = with_current_targets(self.config, self.summary), self.asked
        then, now = (
            {"seed": config.get("seed"), **without_ignored_keys(flatten(config), idle)}
            for config, idle in ((old, self.summary.ignored_keys), (new, find_ignored_keys(new["callbacks"])))
        )
        changed = {
            key: (then.get(key, "absent"), now.get(key, "absent"))
            for key in {**then, **now}
            if key not in then or key not in now or then[key] != now[key]
        }
        if self.resumes:
            changed = {key: pair for key, pair in changed.items() if not _may_change(key, *pair)}
        if not changed:
            return
        named = self._named(changed)
        more = f"; and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
        reason = f"{self.directory} holds a run of another configuration ({'; '.join(named[:_MOST_NAMED])}{more})"
        if self.resumes:
            raise RunError(
                f"resume: {reason}; a run continues with its own settings: use resume={self.directory} alone. What may "
                f"differ: {', '.join(MAY_GROW)} (if larger), {', '.join(MAY_CHANGE)}, loggers, and settings that only "
                "monitor or store."
            )
        way_out = "hydra.sweep.dir" if self.job.sweep else "hydra.run.dir"
        asked = "skip_finished=true: " if self.skips else ""
        raise RunError(f"{asked}{reason}; move it away, or use another {way_out}.")

    def _named(self, changed: Mapping[str, tuple[Any, Any]]) -> list[str]:
        """A changed setting, `optimizer.lr was 0.001 and is 0.3`; a choice stands for all keys that it sets."""
        found: dict[str, None] = {}
        for key, (before, after) in changed.items():
            group = key.partition(".")[0]
            was, now = self.summary.choices.get(group), self.job.choices.get(group)
            if None not in (was, now) and was != now:
                found[f"{group} was {was} and is {now}"] = None
            else:
                found[f"{key} was {override_value(before)} and is {override_value(after)}"] = None
        return list(found)

    def _is_longer(self) -> bool:
        """Whether a resumed run is configured to be longer than before."""
        return any(_limit(_value(self.asked, key)) > _limit(_value(self.config, key)) for key in MAY_GROW)


def truncate_metrics(loggers: Sequence[Logger], start: ResumePoint | None) -> None:
    """Remove rows logged after the checkpoint from the metrics table, also if no training is left."""
    for logger in loggers:
        if isinstance(logger, MetricsCSV):
            logger.start_at(0) if start is None else logger.start_at(start.step, start.rows)


def _is_over(summary: Summary) -> bool:
    """Whether a run has all the result it will have: it finished, or it is a trial of tuning that diverged."""
    return summary.status == "finished" or (summary.is_trial and summary.diverged)


def _may_change(key: str, before: Any, after: Any) -> bool:
    if any(key == other or key.startswith(f"{other}.") for other in MAY_CHANGE):
        return True
    return key in MAY_GROW and _limit(after) > _limit(before)


def _limit(value: Any) -> float:
    return math.inf if value in _UNLIMITED else float(value)


def _value(config: Mapping[str, Any], key: str) -> Any:
    group, _, name = key.partition(".")
    return config[group].get(name)
