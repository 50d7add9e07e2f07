"""From a valid configuration to data, model and Trainer."""

from pathlib import Path

from hydra.utils import instantiate
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from xformer.data.base import DataModule
from xformer.job import Job
from xformer.layers.initialise import initialise
from xformer.logging.metrics_csv import MetricsCSV
from xformer.record.redact import resolved
from xformer.tasks.base import Task

CONFIG_FILE = "config.yaml"


def build_data(config: DictConfig) -> DataModule:
    """The data module, prepared and loaded, so that it can tell its vocabulary."""
    data: DataModule = instantiate(config.data, _convert_="all")(config.seed, Path(config.cache))
    data.prepare_data()
    data.setup("fit")
    return data


def build_task(config: DictConfig, data: DataModule) -> Task:
    """The task with its model, initialised from the seed."""
    architecture, optimizer, schedule, task = (
        instantiate(config[group], _convert_="all") for group in ("architecture", "optimizer", "schedule", "task")
    )
    built: Task = task(data, architecture, optimizer, schedule)
    initialise(built, config.seed)
    return built


def build_loggers(job: Job) -> list[Logger]:
    """The CSV, always, and the chosen ones; the resolved configuration goes to all, and into the run directory."""
    config = resolved(job.config)
    job.directory.mkdir(parents=True, exist_ok=True)
    (job.directory / CONFIG_FILE).write_text(OmegaConf.to_yaml(config))
    chosen = [instantiate(node) for node in (job.config.logger or {}).values() if node is not None]
    return [MetricsCSV(job.directory), *(logger(job.directory, config, job.choices, job.name) for logger in chosen)]


def build_trainer(job: Job) -> Trainer:
    """The Trainer with the chosen callbacks and loggers."""
    callbacks: list[Callback] = [instantiate(node) for node in job.config.callbacks.values() if node is not None]
    if not job.config.trainer.enable_progress_bar:
        callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    trainer: Trainer = instantiate(
        job.config.trainer,
        callbacks=callbacks,
        logger=build_loggers(job),
        default_root_dir=str(job.directory),
        _convert_="all",
    )
    return trainer
