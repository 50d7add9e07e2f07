"""Weights & Biases logging: offline unless an API key is configured, without prompts, one run per job."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from xformer.config.redact import redact
from xformer.errors import ConfigError, RunError
from xformer.loggers.base import RunLogger
from xformer.runs.summary import Summary, summary_as_json

Mode = Literal["auto", "online", "offline", "disabled"]

RECORD = "xformer"
"""The key of the data for repeating a run in its W&B config, and of `summary.json` in its W&B summary."""

_LONGEST_TAG, _LONGEST_NAME = 64, 128  # the service refuses longer ones
_INIT_SECONDS = 30.0
_OLD_NAMES = {"dryrun": "offline", "run": "online"}


class WandbRunLogger(WandbLogger, RunLogger):
    """Lightning's W&B logger with the optimiser step as W&B's step, so that a resumed run continues its curves."""

    @rank_zero_only
    def begin(self, summary: Summary) -> None:
        """Log overrides, choices, commit, versions, machine, data and cost.

        With the configuration this suffices to repeat a run that was killed and left no summary.
        """
        run = self.experiment
        known = {
            key: value
            for key, value in summary_as_json(summary).items()
            if value not in (None, {}, []) and key != "status"
        }
        run.config.update({RECORD: {**run.config.get(RECORD, {}), **known}}, allow_val_change=True)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log a row; W&B merges rows of one step, and drops rows of earlier steps."""
        at = {} if step is None else {"trainer/global_step": step}
        self.experiment.log({**metrics, **at}, step=step)

    @rank_zero_only
    def end(self, exit_code: int, summary: Summary | None = None) -> None:
        """Log the run's summary and finish the W&B run, so that the next job starts its own."""
        import wandb

        run = wandb.run
        if run is None or run is not self.experiment:  # it has ended
            return
        if summary is not None:
            run.summary.update({RECORD: summary_as_json(summary)})
        run.finish(exit_code=exit_code)


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
) -> WandbRunLogger:
    """Start a W&B run and the logger that writes to it; both belong to this job, and `end` finishes them.

    A run resumed in its directory is resumed on W&B too: it keeps its id and continues its curves.

    Every history row of training and validation holds `tokens` beside `trainer/global_step`, so a chart can take
    either as its x-axis; the step is the default. Checkpoints are not uploaded.

    Args:
        directory: The run directory; an offline run is written below it, for `wandb sync`.
        config: The resolved config with secrets taken out (`xformer.config.redact.resolved_config`).
        choices: Config group to option, a hybrid with its layers; each becomes a tag.
        name: The run's name.
        project: The project.
        entity: The team or user; None for the account's default.
        group: Runs to show together; None for the name of the experiment or study, if there is one.
        mode: `auto` is online if a key is configured, else offline. The variable WANDB_MODE wins over this option.

    Raises:
        ConfigError: The package is not installed.
        RunError: The key is malformed, or `online` was requested and the service cannot be reached.
    """
    if getattr(rank_zero_only, "rank", 0) != 0:
        return WandbRunLogger(name=name, project=project, save_dir=directory)
    if find_spec("wandb") is None:
        raise ConfigError(
            "logger=wandb needs the package wandb, which is not installed; use logger=csv to run without it."
        )
    import wandb

    chosen = effective_mode(mode)
    start: dict[str, Any] = {
        "dir": directory,
        # W&B turns 1.0 into 1, and a sweep's parameter `attention` takes the place of the node of that name: the text
        # is what can be run again, and the nodes are there to be looked at and filtered by.
        "config": {**config, RECORD: {"config": json.dumps(config), "directory": redact(str(directory))}},
        "name": redact(name)[:_LONGEST_NAME],
        "project": project,
        "entity": entity,
        "group": redact(group or choices.get("experiment")),
        "job_type": "train",
        "tags": redact(tags(choices)),
        "id": run_id(directory),
        # Without this, the second job of a sweep would log into the first one's run.
        "reinit": "finish_previous",
        "settings": wandb.Settings(silent=True, console="off", init_timeout=_INIT_SECONDS),
    }
    with _failing_where_broken():
        try:
            run = _start(chosen, start)
        except wandb.errors.Error as error:
            if chosen != "online" or mode == "online" or "WANDB_MODE" in os.environ:
                raise RunError(
                    f"Weights & Biases did not start ({error}); use logger.wandb.mode=offline to run without it."
                ) from error
            print("Weights & Biases cannot be reached: this run is logged offline.", flush=True)
            run = _start("offline", start)
        run.define_metric("trainer/global_step")
        run.define_metric("tokens")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return WandbRunLogger(name=name, project=project, save_dir=directory, experiment=run, log_model=False)


@contextmanager
def _failing_where_broken() -> Iterator[None]:
    """A context that marks a W&B run started in it as failed if the block raises."""
    import wandb

    earlier = wandb.run
    try:
        yield
    except BaseException:
        if wandb.run is not None and wandb.run is not earlier:
            wandb.run.finish(exit_code=1)
        raise


def _start(mode: Literal["online", "offline", "disabled"], options: dict[str, Any]) -> Any:
    import wandb

    with _redacted_arguments():  # offline there is no server to ask, and `resume` would only cause a warning
        return wandb.init(mode=mode, resume="allow" if mode == "online" and options["id"] else None, **options)


def run_id(directory: Path) -> str | None:
    """The W&B run id that earlier processes of this run directory used; None if there were none."""
    files = directory.glob("wandb/*run-*/run-*.wandb")
    earlier = min(files, key=lambda file: file.parent.name.rpartition("run-")[2], default=None)
    return earlier.stem.removeprefix("run-") if earlier else None


@contextmanager
def _redacted_arguments() -> Iterator[None]:
    """A context in which W&B records the command line without secrets."""
    typed = sys.argv
    sys.argv = redact(typed)
    try:
        yield
    finally:
        sys.argv = typed


def effective_mode(mode: Mode) -> Literal["online", "offline", "disabled"]:
    """The mode of a run: WANDB_MODE if set, else the configured mode; `auto` is online if there is an API key.

    Raises:
        RunError: WANDB_MODE is not a mode, or the key is malformed.
    """
    asked = os.environ.get("WANDB_MODE") or mode
    asked = _OLD_NAMES.get(asked, asked)
    if asked == "auto":
        return "online" if has_key() else "offline"
    if asked not in ("online", "offline", "disabled"):
        raise RunError(f"WANDB_MODE={asked} is not a valid mode; use online, offline or disabled.")
    return asked  # type: ignore[return-value]


def has_key() -> bool:
    """Whether the environment, netrc or W&B's settings hold an API key; does not prompt or use the network."""
    import wandb
    from wandb.sdk.lib import wbauth

    host = wandb.setup().settings.base_url
    try:
        found = wbauth.authenticate_session(host=host, source="xformer", prompt=False, update_session=False)
    except wandb.errors.AuthenticationError as error:
        raise RunError(
            f"The Weights & Biases key is not valid ({error}); correct it, or set logger.wandb.mode=offline."
        ) from error
    return found is not None


def tags(choices: Mapping[str, str]) -> list[str]:
    """One tag per choice, such as `attention=linformer`, cut to W&B's maximum length."""
    return [f"{group}={option}"[:_LONGEST_TAG] for group, option in choices.items()]
