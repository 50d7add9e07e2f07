"""What a run directory that was used before means for the run that is asked for now."""

import logging
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf

from xformer.config import compatibility
from xformer.config.identity import changes_result, flatten, key_of, override_value, without_ignored_keys
from xformer.config.ignored_keys import find_ignored_keys
from xformer.config.options import with_current_targets
from xformer.config.redact import MASK, resolved_config
from xformer.core.devices import is_main_process
from xformer.data.base import DataModule
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
    """Where a run goes on from.

    Attributes:
        checkpoint: the file.
        step: optimiser steps done.
        rows: of the table of metrics, those that were logged before; None where that was not saved.
        processes: how many saved their random state; None where it was not saved.
    """

    checkpoint: Path
    step: int
    rows: int | None
    processes: int | None


# What is typed


def expand_resume(words: Sequence[str]) -> list[str]:
    """A command line with `resume=DIR` as that run's own overrides, its directory, and then what else was typed.

    Relative paths of the run's own are meant from where it was started: that becomes the working directory, where it
    still exists.

    Raises:
        RunError: DIR is no run.
        ConfigError: it is asked for with what it cannot go with.
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
        what = "holds no run" if directory.is_dir() else "is no directory"
        raise RunError(f"resume={name} {what}: give the directory of the run to continue.")
    summary = read_run(directory).summary
    typed = {key_of(word) for word in rest}
    unheard = tuple(f"{key}." for key in typed if not changes_result(key))  # of another logger than the one chosen now
    saved = [
        override
        for override in summary.overrides
        if key_of(override) not in typed | {"resume"} and not key_of(override).startswith(unheard)
    ]
    hidden = [key_of(override) for override in saved if MASK in override]
    if hidden:
        raise ConfigError(f"resume={name}: {hidden[0]} is a secret, which a run does not keep: type it once more.")
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


def finished_earlier(job: Job) -> Summary | None:
    """The summary of a run that is done, which `skip_finished` and `resume` leave as it is; None where it is to be run.

    Raises:
        RunError: the directory holds a run of another configuration, which would be taken for this one.
    """
    if not (job.config.resume or job.config.skip_finished) or not (job.directory / CONFIG_FILE).exists():
        return None
    _written(job)
    if not job.config.resume and not _trained(job.directory):
        return None  # and so nothing that would be taken for this run
    _refuse_another(job)
    if not (job.directory / FILE).exists():
        return None
    summary = read_summary(job.directory)
    return summary if summary.status == "finished" and not _is_longer(job) else None


def find_resume_point(job: Job) -> ResumePoint | None:
    """Where a run goes on from: `resume` insists on a checkpoint, `skip_finished` takes one if it is there.

    Raises:
        RunError: there is none to resume from, or the directory holds what would be overwritten.
    """
    newest = (
        next(checkpoints.readable_checkpoints(job.directory), None)
        if job.config.resume or job.config.skip_finished
        else None
    )
    if newest is None and job.config.resume:
        raise RunError(
            f"resume=true found no readable checkpoint in hydra.run.dir={job.directory}; give the directory of the run "
            "to continue, or leave resume out to start one."
        )
    if newest is not None:
        file, content = newest
        if not (job.directory / CONFIG_FILE).exists():
            raise RunError(f"{job.directory} has lost its {CONFIG_FILE}, so that nobody knows what was run there.")
        saved = content.get("exact_resume", {})
        processes = len(saved["random"]) if "random" in saved else None
        return ResumePoint(file, content["global_step"], saved.get("rows"), processes)
    if job.config.skip_finished and checkpoints.find_checkpoints(job.directory):
        log.warning("%s has no checkpoint that can be read: this run starts again.", job.directory)
    if is_main_process():  # what the others find there may be the main process's own
        _refuse_to_overwrite(job)
    return None


def check_same_data_and_processes(job: Job, start: ResumePoint, data: DataModule, trainer: Trainer) -> None:
    """Other data or another number of processes than the run has had; known once both are built.

    Raises:
        RunError: naming them.
    """
    known = read_run(job.directory).summary.data_fingerprint
    if known not in (None, data.fingerprint):
        raise RunError(
            f"resume: {job.directory} was trained on other data than are found now (fingerprint {known}, now "
            f"{data.fingerprint}); put back what it was trained on."
        )
    if job.config.callbacks.get("exact_resume") is not None and start.processes != trainer.world_size:
        found = f"by {start.processes} processes" if start.processes else "without its place in the data"
        raise RunError(
            f"{start.checkpoint.name} was saved {found} and cannot be resumed exactly by {trainer.world_size}; use as "
            "many, or set callbacks.exact_resume=null to go on with batches in another order."
        )


def truncate_metrics(loggers: Sequence[Logger], start: ResumePoint | None) -> None:
    """Take out of the table what was logged after the checkpoint, also where nothing is left to train."""
    for logger in loggers:
        if isinstance(logger, MetricsCSV):
            logger.start_at(0) if start is None else logger.start_at(start.step, start.rows)


def schedule_warning(job: Job, start: ResumePoint, schedule: Schedule) -> str | None:
    """What a longer run does to a schedule that is already under way, in a sentence; None where it does nothing."""
    was, now = (_value(config, "trainer.max_steps") for config in (_written(job), resolved_config(job.config)))
    if was in _UNLIMITED or now in _UNLIMITED:
        return None
    before, after = schedule(start.step, was), schedule(start.step, now)
    if before == after:
        return None
    return (
        f"schedule={job.choices.get('schedule')} depends on trainer.max_steps: at step {start.step:,} the learning "
        f"rate was {before:.4g} of its peak for {was:,} steps and is {after:.4g} for {now:,}, so this is not the run "
        f"that {now:,} steps from the start would be."
    )


def _refuse_to_overwrite(job: Job) -> None:
    if is_empty(job.directory):
        return
    if not job.config.skip_finished:  # which starts again where no checkpoint can be read
        checkpoints.check_not_overwriting(job.directory)
    if not any((job.directory / file).exists() for file in (FILE, CONFIG_FILE)):
        names = sorted(entry.name for entry in job.directory.iterdir())
        raise RunError(
            f"hydra.run.dir={job.directory} holds what is no run's ({', '.join(names[:_MOST_NAMED])}); give a new "
            "directory, or an empty one."
        )
    if (job.directory / CONFIG_FILE).exists():
        _written(job)
    try:
        summary = read_run(job.directory).summary
    except DataError as error:
        raise RunError(f"{str(error).rstrip('.')}; give another hydra.run.dir.") from error
    if summary.status == "finished":
        raise RunError(
            f"hydra.run.dir={job.directory} holds a finished run; another hydra.run.dir leaves it alone, and "
            "skip_finished=true is content with it."
        )
    if _trained(job.directory):
        _refuse_another(job)


def _trained(directory: Path) -> bool:
    """Whether a run got as far as a first measurement, a checkpoint or its end."""
    if checkpoints.find_checkpoints(directory):
        return True
    if (directory / FILE).exists() and read_summary(directory).status == "finished":
        return True
    metrics = directory / METRICS_FILE
    return metrics.exists() and metrics.read_bytes().count(b"\n") > 1


def _refuse_another(job: Job) -> None:
    """A run is what its configuration says from its first step to its last."""
    earlier = read_run(job.directory).summary
    old, new = with_current_targets(_written(job), earlier), resolved_config(job.config)
    for key in compatibility.unused_slots(job.config):
        new.pop(key, None)
    then, now = (
        {"seed": config.get("seed"), **without_ignored_keys(flatten(config), idle)}
        for config, idle in ((old, earlier.ignored_keys), (new, find_ignored_keys(new["callbacks"])))
    )
    changed = {
        key: (then.get(key, "absent"), now.get(key, "absent"))
        for key in {**then, **now}
        if key not in then or key not in now or then[key] != now[key]
    }
    if job.config.resume:
        changed = {key: pair for key, pair in changed.items() if not _may_change(key, *pair)}
    if not changed:
        return
    named = _named(changed, job)
    more = f"; and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    reason = f"{job.directory} holds a run of another configuration ({'; '.join(named[:_MOST_NAMED])}{more})"
    if job.config.resume:
        raise RunError(
            f"resume: {reason}; a run goes on as it began: resume={job.directory} alone takes its own, and what may be "
            f"otherwise is {', '.join(MAY_GROW)} (more of them), {', '.join(MAY_CHANGE)}, loggers, and what only "
            "watches or stores."
        )
    way_out = "hydra.sweep.dir" if job.sweep else "hydra.run.dir"
    asked = "skip_finished=true: " if job.config.skip_finished else ""
    raise RunError(f"{asked}{reason}; move it away, or give another {way_out}.")


def _named(changed: Mapping[str, tuple[Any, Any]], job: Job) -> list[str]:
    """`optimizer.lr was 0.001 and is 0.3`; a choice stands for all that it brings."""
    old = read_run(job.directory).summary.choices
    found: dict[str, None] = {}
    for key, (before, after) in changed.items():
        group = key.partition(".")[0]
        was, now = old.get(group), job.choices.get(group)
        if None not in (was, now) and was != now:
            found[f"{group} was {was} and is {now}"] = None
        else:
            found[f"{key} was {override_value(before)} and is {override_value(after)}"] = None
    return list(found)


def _may_change(key: str, before: Any, after: Any) -> bool:
    if any(key == other or key.startswith(f"{other}.") for other in MAY_CHANGE):
        return True
    return key in MAY_GROW and _limit(after) > _limit(before)


def _is_longer(job: Job) -> bool:
    """Whether a resumed run is asked to be longer than it was."""
    old, new = _written(job), resolved_config(job.config)
    return bool(job.config.resume) and any(_limit(_value(new, key)) > _limit(_value(old, key)) for key in MAY_GROW)


def _limit(value: Any) -> float:
    return math.inf if value in _UNLIMITED else float(value)


def _value(config: Mapping[str, Any], key: str) -> Any:
    group, _, name = key.partition(".")
    return config[group].get(name)


def _written(job: Job) -> dict[str, Any]:
    """The configuration that a run left in its directory."""
    file = job.directory / CONFIG_FILE
    try:
        found = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except (yaml.YAMLError, OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise RunError(f"{file} is damaged, so that nobody knows what was run; move it away.")
    return {str(key): value for key, value in found.items()}
