"""Offline runs of W&B, and what the service has of them already.

A run that was resumed has left a file for each time, all of one id. They go up in the order in which they were written,
each going on where the one before it ends, so that the service has one run with one curve.
"""

import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from xformer.errors import DataError, RunError
from xformer.studies import wandb_runs

_WANDB = (sys.executable, "-m", "wandb")
_SYNCED = ".synced"  # what `wandb sync` adds to the name of a file that it uploaded
_SECONDS = 900
_APPEND = {"WANDB_RESUME": "allow"}  # else `wandb sync` writes over the curve that is there


@dataclass(frozen=True)
class OfflineRun:
    """An offline run.

    Attributes:
        file: W&B's own, `RUN/wandb/offline-run-TIME-ID/run-ID.wandb`.
        id: the run's id, which it keeps on the service.
        step: the last step logged; -1 where there is none.
        project: the project.
        entity: the team or user; None for the account's default.
    """

    file: Path
    id: str
    step: int
    project: str
    entity: str | None


@runtime_checkable
class Service(Protocol):
    """What is asked of W&B."""

    def reached(self, project: str, entity: str | None, ids: Collection[str]) -> Mapping[str, int]:
        """The last step of those of the runs that the project holds."""

    def upload(self, file: Path, *, append: bool) -> None:
        """Upload one offline run, or more of one that is there."""


class WandbService:
    """W&B's service, by its public API and its own `wandb sync`."""

    def reached(self, project: str, entity: str | None, ids: Collection[str]) -> Mapping[str, int]:
        """The last step of those of the runs that the project holds; none where there is no such project yet.

        Raises:
            DataError: there is no key or no connection.
        """
        api = wandb_runs.service(project)
        path = f"{entity or api.default_entity}/{project}"
        try:
            runs = api.runs(path, filters={"name": {"$in": sorted(ids)}})
            return {run.id: int(run.summary_metrics.get("_step", -1)) for run in runs}
        except ValueError:
            return {}

    def upload(self, file: Path, *, append: bool) -> None:
        """Upload one offline run, or more of one that is there; `wandb sync` then marks the file.

        Raises:
            RunError: it was not uploaded whole.
        """
        command = [*_WANDB, "sync", str(file.parent)]
        environment = {**os.environ, **_APPEND} if append else None
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_SECONDS, check=False, env=environment
            )
            reason = " ".join((done.stderr or done.stdout).split())[-300:]
        except subprocess.TimeoutExpired:
            reason = f"it took more than {_SECONDS} s"
        if not _is_marked(file):
            raise RunError(f"{file.parent} was not uploaded ({reason}); sync again, which leaves out what was.")


def sync_runs(paths: Sequence[Path], service: Service) -> Iterator[tuple[Path, bool]]:
    """Upload the offline runs below some directories; those that are there already are left alone.

    Yields:
        The directory of each offline run, and whether it was uploaded now.

    Raises:
        DataError: there is no offline run, or one that cannot be read.
        RunError: one was not uploaded; those before it were.
    """
    files = sorted({file for path in paths for file in path.rglob("wandb/offline-run-*/run-*.wandb")})
    if not files:
        raise DataError(
            f"{', '.join(map(str, paths))} holds no offline run of Weights & Biases: logger=wandb leaves them where no "
            "key is configured, or with WANDB_MODE=offline."
        )
    runs = [offline_run(file) for file in files if not _is_marked(file)]
    reached: dict[str, int] = {}
    for project, entity in sorted({(run.project, run.entity) for run in runs}, key=str):
        ids = [run.id for run in runs if (run.project, run.entity) == (project, entity)]
        reached |= service.reached(project, entity, ids)
    waiting = {
        run.file
        for run in runs
        if run.step > reached.get(run.id, -1) or run.id not in reached or any(map(_is_marked, _earlier(run.file)))
    }
    for file in files:
        if file in waiting:
            service.upload(file, append=bool(_earlier(file)))
        yield file.parent, file in waiting


def offline_run(file: Path) -> OfflineRun:
    """What an offline file says of itself, by W&B's own reader.

    Raises:
        DataError: it is damaged.
    """
    command = [*_WANDB, "leet", "inspect", "--summary", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        content = json.loads(done.stdout)
        return OfflineRun(
            file,
            content["run_id"],
            -1 if content.get("step") is None else int(content["step"]),
            content["project"],
            content["entity"] or None,
        )
    except (ValueError, KeyError) as error:
        reason = " ".join(done.stderr.split()) or "it says nothing"
        raise DataError(f"{file} is no offline run that W&B can read ({reason}); move it away.") from error


def _earlier(file: Path) -> list[Path]:
    """What the same run logged before, online or offline, in the same directory."""
    others = file.parents[1].glob(f"*run-*/{file.name}")
    return [other for other in others if _time(other) < _time(file)]


def _time(file: Path) -> str:
    return file.parent.name.rpartition("run-")[2]  # TIME-ID


def _is_marked(file: Path) -> bool:
    return file.with_name(file.name + _SYNCED).exists()
