"""Evaluation: of the best weights after training, and of a finished run on its own or other data."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from xformer.callbacks.throughput import Throughput
from xformer.callbacks.train_metrics import TrainMetrics
from xformer.config.plan import Plan
from xformer.config.validate import validate
from xformer.data.base import DataModule
from xformer.errors import ConfigError, DataError
from xformer.runs import checkpoints
from xformer.runs.job import Job
from xformer.runs.open_run import OpenedRun
from xformer.runs.summary import MonitoredMetric, Summary
from xformer.tasks.base import Task
from xformer.tokenizers.base import Tokenised


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation, and what was evaluated.

    Attributes:
        run: the run directory.
        checkpoint: the file that the weights were loaded from.
        data: the typed overrides of the run's data.
        description: the data in a line.
        data_fingerprint: hash of the data as read.
        metrics: values by name, `val/loss` or `test/accuracy`; None where one is not finite.
    """

    run: str
    checkpoint: str
    data: list[str]
    description: str
    data_fingerprint: str
    metrics: dict[str, float | None]

    def save(self, file: Path) -> None:
        """Write the result as JSON.

        Raises:
            DataError: the file cannot be written.
        """
        try:
            file.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise DataError(f"--output {file} cannot be written: {error.strerror}.") from error


def evaluate(run: OpenedRun, overrides: Sequence[str] = (), split: str | None = None) -> Evaluation:
    """Evaluate the run's model with the run's tokenizer; nothing is trained, and the run is left as it is.

    Args:
        run: the model.
        overrides: `key=value`, of the run's data.
        split: "val" or "test"; None for all splits.

    Raises:
        ConfigError: an override does not set a key of the data.
        DataError: the data cannot be read, do not suit the model, or lack the split.
    """
    data = _data(run, overrides)
    splits = [name for name in ("val", "test") if name in data.splits] if split is None else [split]
    if not set(splits) <= set(data.splits):
        raise DataError(f"These data have no {split} split; what they have: {', '.join(data.splits)}.")
    trainer = Trainer(
        accelerator="auto",
        devices=1,
        precision=run.config.trainer.precision,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    metrics: dict[str, float | None] = {}
    for name in splits:
        (trainer.validate if name == "val" else trainer.test)(run.task, data, verbose=False)
        values = {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith(f"{name}/")}
        metrics |= {key: value if math.isfinite(value) else None for key, value in values.items()}
    where = str(run.directory), str(run.checkpoint)
    return Evaluation(*where, list(overrides), data.describe(), data.fingerprint, metrics)


def _data(run: OpenedRun, overrides: Sequence[str]) -> DataModule:
    """Prepare and load the data, and check that the model can read them."""
    data = Plan.of(_overridden(run.config, overrides)).data
    if isinstance(run.data, Tokenised) and isinstance(data, Tokenised):
        data.tokenizer = run.data.tokenizer.freeze()
    data.prepare_data()
    data.setup("validate")
    for key in ("vocabulary", "classes", "class_names"):
        trained, found = getattr(run.data.spec, key), getattr(data.spec, key)
        if trained != found:
            raise DataError(
                f"The data's {key} is {found} and the model's {trained}: use data of the kind that it was trained on."
            )
    return data


def _overridden(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    changed = config.copy()
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not (key and equals):
            raise ConfigError(f"--data {override} is not of the form key=value, such as block=512.")
        if key.startswith("_"):
            raise ConfigError(
                f"--data {override} would replace the data set; override its keys instead, such as block=512."
            )
        try:
            changed.data = OmegaConf.merge(changed.data, OmegaConf.from_dotlist([override]))
        except (OmegaConfBaseException, YAMLError) as error:
            raise ConfigError(f"--data {override} cannot be read: {str(error).splitlines()[0]}.") from error
    validate(changed)
    return changed


def evaluate_best(trainer: Trainer, task: Task, data: DataModule, summary: Summary, job: Job) -> None:
    """Validate and test the best weights, and collect the metrics of training; a trial of tuning is not tested."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    throughput = next((c for c in callbacks if isinstance(c, Throughput)), None)
    trained = next((c for c in callbacks if isinstance(c, TrainMetrics)), None)
    metrics: dict[str, float | None] = dict(trained.values) if trained else {}
    metrics |= {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("train/")}
    if throughput:
        summary.tokens_seen, summary.tokens_per_second = throughput.tokens_seen, throughput.tokens_per_second
        summary.wall_seconds = throughput.earlier_seconds
    keepers = (c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor)
    keeper = next(keepers, None)
    best, step = (keeper.best_model_path if keeper else ""), trainer.global_step
    if best:
        step = checkpoints.read_checkpoint(Path(best))["global_step"]
    elif keeper:  # stopped before the first validation: save the current weights
        trainer.save_checkpoint(Path(keeper.dirpath or job.directory) / checkpoints.LAST)
    end = trainer.global_step
    loggers, trainer.loggers = trainer.loggers, []  # the curve has the values of validation already
    trainer.validate(task, data, ckpt_path=best or None, verbose=False)
    metrics |= {name: value.item() for name, value in trainer.callback_metrics.items()}
    if not summary.is_trial and data.test_dataloader():
        trainer.test(task, data, ckpt_path=best or None, verbose=False)
        tested = {name: value.item() for name, value in trainer.callback_metrics.items()}
        metrics |= tested
        _log_tested(loggers, tested, end)
    trainer.loggers = loggers
    monitor = job.config.monitor
    summary.metrics = dict(metrics)
    summary.monitor = MonitoredMetric(monitor.name, monitor.mode, metrics.get(monitor.name), step)


def _log_tested(loggers: list[Logger], metrics: dict[str, float], step: int) -> None:
    """Log at training's last step, which Lightning does not know where a resumed run has nothing left to train."""
    for logger in loggers:
        logger.log_metrics(metrics, step)
        logger.finalize("success")
