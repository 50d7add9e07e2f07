"""Runs read from Weights & Biases' service instead of run directories."""

import math
from typing import Any

from xformer.analysis.load import Run
from xformer.analysis.settings import of_config
from xformer.errors import DataError
from xformer.record.summary import Monitor, Summary

_STATUS = {"finished": "finished"}


def load_wandb(path: str) -> list[Run]:
    """The runs of `entity/project` or `entity/project/group`.

    The service holds the resolved configuration, the metrics and how a run ended; what it does not hold (parameters,
    FLOPs, fingerprints) is unknown, and a local run directory has it.

    Raises:
        DataError: there is no key, no connection, no such project or no run in it.
    """
    import wandb

    parts = path.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise DataError(f"--wandb {path} is not a project; write entity/project or entity/project/group.")
    try:
        api = wandb.Api(timeout=20)
        filters = {"group": parts[2]} if len(parts) == 3 else None
        found = [_run(path, run) for run in api.runs("/".join(parts[:2]), filters=filters)]
    except (wandb.errors.Error, ValueError, OSError) as error:
        raise DataError(
            f"--wandb {path} cannot be read ({str(error).splitlines()[0]}); it takes a network and a key "
            "(wandb login, or the variable WANDB_API_KEY). The run directories hold the same and need neither."
        ) from error
    if not found:
        raise DataError(f"--wandb {path} holds no run.")
    return found


def _run(path: str, run: Any) -> Run:
    config = dict(run.config)
    choices = dict(tag.split("=", 1) for tag in run.tags if "=" in tag)
    numbers = {k: float(v) for k, v in dict(run.summary).items() if "/" in k and isinstance(v, int | float)}
    metrics: dict[str, float | None] = {k: v for k, v in numbers.items() if math.isfinite(v)}
    status = _STATUS.get(run.state, "failed")
    summary = Summary(
        "finished" if status == "finished" else "failed",
        error=None if status == "finished" else f"W&B has it as {run.state}.",
        choices=choices, overrides=[], seed=config.get("seed"), metrics=metrics,
        monitor=Monitor(**config["monitor"]) if "monitor" in config else None,
        tokens_seen=dict(run.summary).get("tokens"), git={"commit": getattr(run, "commit", None), "dirty": None},
    )  # fmt: skip
    summary.wall_seconds = dict(run.summary).get("_runtime")
    return Run(f"{path}/{run.id}", of_config(config, choices), summary)
