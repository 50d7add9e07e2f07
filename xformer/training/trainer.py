"""Building the Trainer, its loggers and callbacks from a valid configuration."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import InstantiationException
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, ProgressBar
from omegaconf import DictConfig, OmegaConf
from torchmetrics import MetricCollection

from xformer.callbacks.train_metrics import TrainMetrics
from xformer.config.groups import nearest
from xformer.config.redact import resolved_config
from xformer.config.validate import instantiate_node
from xformer.config.values import format_value
from xformer.errors import ConfigError
from xformer.loggers.base import RunLogger
from xformer.loggers.metrics_csv import MetricsCSV
from xformer.runs.checkpoints import FOLDER, CheckpointFiles
from xformer.runs.job import CONFIG_FILE, Job
from xformer.runs.storage import write_atomically
from xformer.tasks.base import Task
from xformer.training import launch_checks


def build_loggers(job: Job) -> Iterator[RunLogger]:
    """Build the loggers: the CSV table always, then the chosen ones; all receive the resolved configuration.

    Each is yielded before the next one is built, so that those started can be ended if a later one fails.
    """
    config = resolved_config(job.config)
    chosen = [instantiate_node(node) for node in (job.config.logger or {}).values() if node is not None]
    yield MetricsCSV(job.directory)
    for logger in chosen:
        yield logger(job.directory, config, job.shown_choices, job.name)


def write_config(job: Job) -> None:
    """Write the resolved configuration to the run directory."""
    write_atomically(job.directory / CONFIG_FILE, OmegaConf.to_yaml(resolved_config(job.config)))


def build_trainer(job: Job) -> Trainer:
    """Build the Trainer with the chosen callbacks; loggers are added later, as they may write once built.

    Raises:
        ConfigError: the Trainer or a callback refuses a value; the message names the key.
        RunError: devices do not exist, or the number of launched processes differs.
    """
    node = job.config.trainer
    launch_checks.check_machine(node)
    if node.max_steps == -1 and node.max_epochs in (None, -1):
        raise ConfigError("trainer.max_steps=-1 and trainer.max_epochs=-1 would never end: set one of them.")
    if node.barebones:
        raise ConfigError(
            "trainer.barebones=true disables the logging and checkpoints that a run needs: use trainer.barebones=false."
        )
    callbacks = [*_callbacks(job.config), TrainMetrics()]
    with as_config_errors("trainer", node):
        trainer: Trainer = instantiate_node(node)(
            callbacks=callbacks, logger=False, default_root_dir=str(job.directory)
        )
    launch_checks.check_devices(trainer)
    launch_checks.check_world_size(trainer)
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(job.directory / FOLDER)
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # unless trainer.plugins has another
        trainer.strategy.checkpoint_io = CheckpointFiles()
    return trainer


def _callbacks(config: DictConfig) -> list[Callback]:
    callbacks: list[Callback] = []
    for key, node in config.callbacks.items():
        if node is not None:
            with as_config_errors(f"callbacks.{key}", node):
                callbacks.append(instantiate_node(node))
    unwanted = {"enable_progress_bar": ProgressBar, "enable_checkpointing": Checkpoint}
    kinds = tuple(kind for key, kind in unwanted.items() if not config.trainer[key])
    return [callback for callback in callbacks if not isinstance(callback, kinds)]


_REFUSALS = (MisconfigurationException, ValueError, TypeError, ImportError, MemoryError)


@contextmanager
def as_config_errors(path: str, node: DictConfig) -> Iterator[None]:
    """A context that turns Lightning's errors into a ConfigError that names the key.

    The key is that of the parameter, or of the value, in Lightning's message.

    Args:
        path: the node's path in the configuration.
        node: the node passed to Lightning.

    Raises:
        ConfigError: instead of Lightning's errors.
    """
    try:
        yield
    except (InstantiationException, *_REFUSALS) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if not isinstance(cause, _REFUSALS):
            raise
        message = " ".join(str(cause).split()).rstrip(".") or type(cause).__name__
        values = {str(key): value for key, value in node.items() if not str(key).startswith("_")}
        named = [key for key in values if re.search(rf"\b{key}\b", message)]
        named += [key for key, value in values.items() if re.search(rf"\b{re.escape(str(value))}\b", message)]
        where = f"{path}.{named[0]}={format_value(values[named[0]])}" if named else path
        raise ConfigError(f"{where} is refused by Lightning: {message}.") from error


def check_monitors(trainer: Trainer, task: Task) -> None:
    """Refuse to monitor a metric that the task does not log.

    Raises:
        ConfigError: naming the metric.
    """
    known = {f"{stage}/loss" for stage in ("train", "val")} | {"tokens", "tokens_per_second"}
    for metrics in task.children():
        if isinstance(metrics, MetricCollection) and metrics.prefix in ("train/", "val/"):
            known |= {str(name) for name in metrics}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        name = getattr(callback, "monitor", None)
        if name is not None and name not in known and not name.startswith("probe/"):
            raise ConfigError(f"monitor.name={name} is not a metric of this task; {nearest(name, known)}")
