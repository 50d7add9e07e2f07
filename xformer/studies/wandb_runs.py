"""Runs read from Weights & Biases' service instead of run directories."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from xformer.config.identity import with_warm_start_source
from xformer.errors import DataError
from xformer.loggers.wandb import RECORD, has_key
from xformer.runs.recorded_run import RecordedRun, settings_of
from xformer.runs.summary import MonitoredMetric, Summary, summary_from_json

_SECONDS = 20
_STEP = "trainer/global_step"


@dataclass(frozen=True)
class LoggedRun(RecordedRun):
    """A run on the service.

    Attributes:
        config: its resolved configuration.
        source: the run directory on the machine that ran it, as in the configuration.
        remote: the service's own object, a `wandb.apis.public.Run`.
    """

    config: Any = None
    source: str | None = None
    remote: Any = None

    @property
    def group(self) -> str | None:
        """`entity/project/group`; None if the run has no group."""
        group = getattr(self.remote, "group", None)
        return "/".join([*self.name.split("/")[:2], group]) if group else None

    def curve(self, metric: str) -> dict[int, float]:
        """The values logged during training, by optimiser step."""
        with explaining_network_errors(self.name):
            rows = self.remote.scan_history(keys=[_STEP, metric])
            return {int(row[_STEP]): float(row[metric]) for row in rows}


def load_wandb(path: str) -> list[RecordedRun]:
    """The runs of `entity/project` or `entity/project/group`, including unfinished ones.

    Raises:
        DataError: there is no key, no connection, no such project or no run of train.py in it.
    """
    parts = path.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise DataError(f"--wandb {path} is not a project; write entity/project or entity/project/group.")
    project, filters = "/".join(parts[:2]), {"group": parts[2]} if len(parts) == 3 else None
    api = service(path)
    with explaining_network_errors(path):
        remotes = list(api.runs(project, filters=filters, lazy=False))
        found: list[RecordedRun] = [_run(project, remote) for remote in remotes if _is_ours(remote)]
    if not found:
        raise DataError(f"--wandb {path} contains no run of train.py.")
    return found


def load_wandb_run(path: str) -> LoggedRun:
    """One run, `entity/project/run_id`.

    Raises:
        DataError: there is no key, no connection, or no such run.
    """
    parts = path.split("/")
    if len(parts) != 3 or not all(parts):
        raise DataError(f"--wandb {path} is not a run; write entity/project/run_id.")
    api = service(path)
    with explaining_network_errors(path):
        remote = api.run(path)
        if not _is_ours(remote):
            raise DataError(f"--wandb {path} is not a run of train.py: its config has no seed.")
        return _run("/".join(parts[:2]), remote)


def service(path: str) -> Any:
    """The service's API.

    Raises:
        DataError: there is no key or no connection.
    """
    import wandb

    if not has_key():
        raise DataError(f"{path} is on Weights & Biases, which needs a key: wandb login, or WANDB_API_KEY. {_LOCAL}")
    with explaining_network_errors(path):
        return wandb.Api(timeout=_SECONDS)


@contextmanager
def explaining_network_errors(path: str) -> Iterator[None]:
    """Turn errors of the service into a `DataError`.

    Raises:
        DataError: there is no connection, or nothing of that name.
    """
    import wandb

    try:
        yield
    except (wandb.errors.Error, ValueError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{path} cannot be reached on Weights & Biases ({reason}). {_LOCAL}") from error


_LOCAL = "Run directories hold the same data and need no network."


def _is_ours(remote: Any) -> bool:
    return "seed" in remote.config


def _run(project: str, remote: Any) -> LoggedRun:
    logged = dict(remote.config)
    began = logged.pop(RECORD, {})
    config = json.loads(began["config"]) if "config" in began else logged
    ended = remote.summary_metrics.get(RECORD)
    summary = summary_from_json(ended) if ended else _unfinished(remote, {"seed": config["seed"], **began})
    settings = with_warm_start_source(settings_of(config, summary), summary.warm_start)
    return LoggedRun(f"{project}/{remote.id}", settings, summary, None, True, config, began.get("directory"), remote)


def _unfinished(remote: Any, began: dict[str, Any]) -> Summary:
    """The summary of a run that logged none: its start, and the last value of each metric.

    Finished runs of older versions have no summary either.
    """
    summary = summary_from_json({"status": "failed", **began})
    summary.choices = summary.choices or dict(tag.split("=", 1) for tag in remote.tags if "=" in tag)
    summary.git = summary.git or {"commit": getattr(remote, "commit", None), "dirty": None}
    last = {k: v for k, v in remote.summary_metrics.items() if "/" in k and isinstance(v, int | float)}
    summary.metrics = {name: float(value) for name, value in last.items() if math.isfinite(value)}
    if "monitor" in remote.config and summary.monitor is None:
        summary.monitor = MonitoredMetric(**remote.config["monitor"])
    summary.tokens_seen = remote.summary_metrics.get("tokens")
    summary.wall_seconds = remote.summary_metrics.get("_runtime")
    if remote.state == "finished":
        summary.status = "finished"
    else:
        summary.error = f"The run has no summary; its state on W&B is {remote.state}."
    return summary
