"""Upload of offline W&B runs, skipping what the service has already.

A resumed run leaves one file per process, all with the same id. The files are uploaded in the order in which they were
written, each continuing where the one before it ends, so that the service shows one run with one curve.
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
_SYNCED = ".synced"  # the suffix that `wandb sync` adds to the name of an uploaded file
_SECONDS = 900
_APPEND = {"WANDB_RESUME": "allow"}  # without this `wandb sync` overwrites the existing curve


@dataclass(frozen=True)
class OfflineRun:
    """An offline run.

    Attributes:
        file: W&B's own, `RUN/wandb/offline-run-TIME-ID/run-ID.wandb`.
        id: the run's id, the same on the service.
        step: the last step logged; -1 if nothing was logged.
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
    """The interface to W&B."""

    def reached(self, project: str, entity: str | None, ids: Collection[str]) -> Mapping[str, int]:
        """The last step of each of these runs that the project holds."""

    def upload(self, file: Path, *, append: bool) -> None:
        """Upload one offline run, or the rest of it."""


class WandbService:
    """The W&B service, through its public API and `wandb sync`."""

    def reached(self, project: str, entity: str | None, ids: Collection[str]) -> Mapping[str, int]:
        """The last step of each of these runs that the project holds; empty if the project does not exist yet.

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
        """Upload one offline run, or the rest of it; `wandb sync` then marks the file.

        Raises:
            RunError: the upload is incomplete.
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
            raise RunError(f"{file.parent} was not uploaded ({reason}); run sync again, which skips what is uploaded.")


def sync_runs(paths: Sequence[Path], service: Service) -> Iterator[tuple[Path, bool]]:
    """Upload the offline runs below some directories, skipping those that are uploaded already.

    Yields:
        The directory of each offline run, and whether it was uploaded now.

    Raises:
        DataError: there is no offline run, or one cannot be read.
        RunError: an upload failed; the runs before it are uploaded.
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
    """Read an offline file with W&B's reader.

    Raises:
        DataError: the file is damaged.
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
        reason = " ".join(done.stderr.split()) or "no reason"
        raise DataError(f"{file} is not an offline run that W&B can read ({reason}); move it away.") from error


def _earlier(file: Path) -> list[Path]:
    """Files that the same run logged earlier in the same directory, online or offline."""
    others = file.parents[1].glob(f"*run-*/{file.name}")
    return [other for other in others if _time(other) < _time(file)]


def _time(file: Path) -> str:
    return file.parent.name.rpartition("run-")[2]  # TIME-ID


def _is_marked(file: Path) -> bool:
    return file.with_name(file.name + _SYNCED).exists()
