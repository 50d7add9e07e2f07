"""Weights & Biases: offline unless a key is configured, never a prompt, one run per job."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from xformer.errors import RunError

Mode = Literal["auto", "online", "offline", "disabled"]

_LONGEST_TAG = 64  # the service refuses longer ones
_INIT_SECONDS = 30.0
_OLD_NAMES = {"dryrun": "offline", "run": "online"}


def wandb_logger(
    directory: Path,
    config: dict[str, Any],
    choices: Mapping[str, str],
    name: str,
    *,
    project: str,
    entity: str | None,
    group: str | None,
    mode: Mode,
) -> WandbLogger:
    """Start a run and the logger that writes to it; both belong to this job alone and end with `finish`.

    Every history row of training and validation holds `tokens` beside `trainer/global_step`, so a chart can take
    either as its x-axis; the step is the default. Checkpoints are not uploaded.

    Args:
        directory: The run directory; an offline run is written below it, for `wandb sync`.
        config: The resolved config with secrets taken out (`xformer.record.redact.resolved`).
        choices: Config group to option; each becomes a tag.
        name: The run's name.
        project: The project.
        entity: The team or user; None for the account's default.
        group: Runs to show together, such as a study; None for none.
        mode: `auto` is online if a key is configured, else offline. The variable WANDB_MODE wins over this option.

    Raises:
        RunError: The key is malformed, or `online` was asked for and the service cannot be reached.
    """
    if getattr(rank_zero_only, "rank", 0) != 0:
        return WandbLogger(name=name, project=project, save_dir=directory)
    import wandb

    chosen = effective_mode(mode)
    start: dict[str, Any] = {
        "dir": directory,
        "config": config,
        "name": name,
        "project": project,
        "entity": entity,
        "group": group,
        "job_type": "train",
        "tags": tags(choices),
        # Without this, the second job of a sweep would log into the first one's run.
        "reinit": "finish_previous",
        "settings": wandb.Settings(silent=True, console="off", init_timeout=_INIT_SECONDS),
    }
    try:
        run = wandb.init(mode=chosen, **start)
    except wandb.errors.Error as error:
        if chosen != "online" or mode == "online" or "WANDB_MODE" in os.environ:
            raise RunError(
                f"Weights & Biases did not start ({error}); logger.wandb.mode=offline runs without it."
            ) from error
        print("Weights & Biases cannot be reached: this run is logged offline.", flush=True)
        run = wandb.init(mode="offline", **start)
    run.define_metric("trainer/global_step")
    run.define_metric("tokens")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return WandbLogger(name=name, project=project, save_dir=directory, experiment=run, log_model=False)


def effective_mode(mode: Mode) -> Literal["online", "offline", "disabled"]:
    """The mode a run would start in: WANDB_MODE if set, else what was asked for, `auto` by whether there is a key.

    Raises:
        RunError: WANDB_MODE is not a mode, or the key is malformed.
    """
    asked = os.environ.get("WANDB_MODE") or mode
    asked = _OLD_NAMES.get(asked, asked)
    if asked == "auto":
        return "online" if _has_credentials() else "offline"
    if asked not in ("online", "offline", "disabled"):
        raise RunError(f"WANDB_MODE={asked} is not a mode; use online, offline or disabled.")
    return asked  # type: ignore[return-value]


def _has_credentials() -> bool:
    """Whether the environment, netrc or W&B's settings hold a key; asks neither the user nor the network."""
    import wandb
    from wandb.sdk.lib import wbauth

    host = wandb.setup().settings.base_url
    try:
        found = wbauth.authenticate_session(host=host, source="xformer", prompt=False, update_session=False)
    except wandb.errors.AuthenticationError as error:
        raise RunError(
            f"The Weights & Biases key is not valid ({error}); mend it, or set logger.wandb.mode=offline."
        ) from error
    return found is not None


def tags(choices: Mapping[str, str]) -> list[str]:
    """One tag per choice, `attention=linformer`, cut to the length the service takes."""
    return [f"{group}={option}"[:_LONGEST_TAG] for group, option in choices.items()]


def finish(exit_code: int) -> None:
    """End this job's run, if one is open, so that the next job starts its own; call it in a `finally`.

    Args:
        exit_code: 0 for a run that finished; anything else shows as failed.
    """
    # Looked up, not imported: a run without this logger should not pay for the import.
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=exit_code)
