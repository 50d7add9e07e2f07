"""From a valid configuration to data, model and Trainer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from xformer.architecture.base import ArchitectureFactory
from xformer.callbacks.train_metrics import TrainMetrics
from xformer.checkpoints import FOLDER, CheckpointFiles
from xformer.configuration import make
from xformer.data.base import DataModule
from xformer.job import CONFIG_FILE, Job
from xformer.layers.initialise import initialise
from xformer.logging.metrics_csv import MetricsCSV
from xformer.optimization.optimizer import OptimizerFactory
from xformer.optimization.schedule import Schedule
from xformer.record.redact import resolved
from xformer.record.storage import write_whole
from xformer.tasks.base import Task


@dataclass(frozen=True)
class Plan:
    """Everything a configuration says, as factories that wait for the data."""

    data: DataModule
    architecture: ArchitectureFactory
    optimizer: OptimizerFactory
    schedule: Schedule
    task: Callable[..., Task]
    seed: int

    @classmethod
    def of(cls, config: DictConfig) -> "Plan":
        """Instantiate every part; nothing is loaded yet, and a bad value is refused here.

        Raises:
            ConfigError: a value that its class refuses.
        """
        architecture, optimizer, schedule, task = (
            make(config[group]) for group in ("architecture", "optimizer", "schedule", "task")
        )
        # Called twice in every step, where Hydra would check each time anew what a partial of its own may call.
        schedule = partial(schedule.func, *schedule.args, **schedule.keywords)
        data = make(config.data)(config.seed, Path(config.cache))
        return cls(data, architecture, optimizer, schedule, task, config.seed)

    def load_data(self) -> DataModule:
        """The data module, prepared and loaded, so that it can tell its vocabulary."""
        self.data.prepare_data()
        self.data.setup("fit")
        return self.data

    def build_task(self) -> Task:
        """The task with its model, initialised from the seed."""
        task = self.task(self.data.facts, self.architecture, self.optimizer, self.schedule)
        initialise(task, self.seed)
        return task


def build_loggers(job: Job) -> list[Logger]:
    """The CSV, always, and the chosen ones; the resolved configuration goes to all."""
    config = resolved(job.config)
    chosen = [make(node) for node in (job.config.logger or {}).values() if node is not None]
    return [MetricsCSV(job.directory), *(logger(job.directory, config, job.choices, job.name) for logger in chosen)]


def write_config(job: Job) -> None:
    """Leave the resolved configuration in the run directory."""
    write_whole(job.directory / CONFIG_FILE, OmegaConf.to_yaml(resolved(job.config)))


def build_trainer(job: Job) -> Trainer:
    """The Trainer with the chosen callbacks, and without loggers, which may write as soon as they are built."""
    callbacks: list[Callback] = [make(node) for node in job.config.callbacks.values() if node is not None]
    if not job.config.trainer.enable_progress_bar:
        callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    trainer: Trainer = make(job.config.trainer)(
        callbacks=[*callbacks, TrainMetrics()], logger=False, default_root_dir=str(job.directory)
    )
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(job.directory / FOLDER)
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # not where trainer.plugins brings another
        trainer.strategy.checkpoint_io = CheckpointFiles()
    return trainer
