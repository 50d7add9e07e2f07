"""What a run directory that was used before means for the run that is asked for now."""

import logging
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf

from xformer import checkpoints, compatibility
from xformer.analysis.settings import of_config
from xformer.build import CONFIG_FILE
from xformer.errors import RunError
from xformer.job import Job
from xformer.record.redact import resolved
from xformer.record.summary import FILE, Summary, read_summary

log = logging.getLogger(__name__)


def finished(job: Job) -> Summary | None:
    """The summary of a cell that is done, which `skip_finished` does not run again; None where it is to be run.

    Raises:
        RunError: the directory holds a run of another configuration, which would be taken for this one.
    """
    if not job.config.skip_finished or not (job.directory / CONFIG_FILE).exists():
        return None
    _refuse_another(job.directory, job.config)
    if not (job.directory / FILE).exists():
        return None
    summary = read_summary(job.directory)
    return summary if summary.status == "finished" else None


def checkpoint(job: Job) -> Path | None:
    """Where a run goes on from: `resume` insists on a checkpoint, `skip_finished` takes one if it is there.

    Raises:
        RunError: there is none to resume from, or one that would be overwritten.
    """
    if job.config.resume:
        return checkpoints.newest_readable(job.directory)
    if not job.config.skip_finished:
        checkpoints.refuse_to_overwrite(job.directory)
        return None
    newest = next((file for file, _ in checkpoints.readable(job.directory)), None)
    if newest is None and checkpoints.found(job.directory):
        log.warning("%s has no checkpoint that can be read: this run starts again.", job.directory)
    return newest


def trained(job: Job) -> dict[str, float | None]:
    """The training metrics that a run ended with before, in this directory; none where it did not end."""
    if not (job.directory / FILE).exists():
        return {}
    metrics = read_summary(job.directory).metrics
    return {name: value for name, value in metrics.items() if name.startswith("train/")}


def _refuse_another(directory: Path, config: DictConfig) -> None:
    old, new = _written(directory / CONFIG_FILE), resolved(config)
    for key in compatibility.unused(config):
        new.pop(key, None)
    then, now = of_config(old, {}), of_config(new, {})
    changed = {"seed": (old.get("seed"), config.seed)}
    changed |= {key: (then.get(key, "absent"), now.get(key, "absent")) for key in {**then, **now}}
    told = [f"{key} was {before} and is {after}" for key, (before, after) in changed.items() if before != after]
    if told:
        raise RunError(
            f"skip_finished=true: {directory} holds a run of another configuration ({'; '.join(told[:3])}); "
            "move it away, or give another hydra.sweep.dir."
        )


def _written(file: Path) -> dict[str, Any]:
    """The configuration that a run left in its directory."""
    try:
        found = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except (yaml.YAMLError, OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise RunError(f"skip_finished=true: {file} is damaged, so that nobody knows what was run; move it away.")
    return {str(key): value for key, value in found.items()}
