"""Overhead benchmark: the same training steps under the Trainer, with logging, and in a bare PyTorch loop.

Under the Trainer are those parts of a default run that work in every step: the loggers (metrics.csv, and Weights &
Biases offline) every 10 steps, and the callbacks `throughput`, `exact_resume` and `finite_loss`. Left out are the
callbacks `progress`, `checkpoint`, `last_checkpoint` and `save_on_interrupt`, and the validation.

Both sides train the same model (a decoder of 4 layers, d 256, 256 tokens, batch 8) on the same batches with the same
optimiser, schedule and clipping. They alternate step by step, because a machine may be twice as slow a minute later:
after each step of the Trainer the bare loop makes one, and a second bare loop another. The ratio of these two is the
control, which shows the noise. The data loader is also measured alone, because the loop must not wait for it.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig

from xformer.benchmark.plots import plot_bars
from xformer.benchmark.progress import progress_bar
from xformer.benchmark.results import Results, Row
from xformer.benchmark.timing import REPEATED, Times
from xformer.callbacks.finite_loss import FiniteLoss
from xformer.callbacks.resume import ExactResume
from xformer.callbacks.throughput import Throughput
from xformer.config.plan import Plan
from xformer.data.base import DataModule
from xformer.errors import ConfigError
from xformer.loggers.metrics_csv import MetricsCSV
from xformer.loggers.wandb import wandb_logger
from xformer.runs.job import Job
from xformer.tasks.base import Task
from xformer.training.console_report import quiet_lightning

BARE, TRAINER, LOADING = "bare loop", "Trainer", "data loading alone"
STEPS, WARMUP = 20, 3
SHOWN = {"what": ("what", ""), "step_ms": ("ms per step", ".1f"), "throughput": ("throughput", ".3f")}


class InterleavedSteps(Callback):
    """A callback that runs the steps of other loops between those of the Trainer, without timing them as its own.

    Args:
        others: functions that make one step, by name.
        on_progress: called after each step of the Trainer, untimed.

    Attributes:
        seconds: the seconds of every step after the warm-up, of the Trainer and the others.
    """

    def __init__(
        self, others: Mapping[str, Iterator[object]], on_progress: Callable[[], object] = lambda: None
    ) -> None:
        self.others, self.on_progress = others, on_progress
        self.seconds: dict[str, list[float]] = {name: [] for name in (*others, TRAINER)}
        self._resumed = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the Trainer's turn, take the others', and let it go on."""
        began = time.perf_counter()
        took = {TRAINER: began - self._resumed}
        for name, steps in self.others.items():
            next(steps)  # `measure` has checked that there are enough
            ended = time.perf_counter()
            took[name], began = ended - began, ended
        if trainer.global_step > WARMUP:
            for name, seconds in took.items():
                self.seconds[name].append(seconds)
        self.on_progress()
        self._resumed = time.perf_counter()


def train_with_trainer(task: Task, data: DataModule, directory: Path, between: InterleavedSteps) -> None:
    """Train with the loggers and callbacks that run in every step."""
    remote = wandb_logger(directory, {}, {}, "overhead", project="xformer", entity=None, group=None, mode="offline")
    trainer = Trainer(
        max_steps=STEPS,
        callbacks=[Throughput(warmup=WARMUP), ExactResume(), FiniteLoss(every=50), between],
        logger=[MetricsCSV(directory), remote],
        log_every_n_steps=10,
        gradient_clip_val=1.0,
        accelerator="cpu",
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=directory,
    )
    trainer.fit(task, data)
    remote.end(0)


def bare_loop(task: Task, plan: Plan, batches: Iterable[Any]) -> Iterator[None]:
    """The training steps in a plain hand-written loop."""
    optimizer = plan.optimizer(task, True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: plan.schedule(step, STEPS))
    task.train()
    for batch in batches:
        loss = task.step(task.prepare(batch)).loss
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        yield


def loading_seconds(data: DataModule) -> float:
    """Seconds per batch of the data loader alone."""
    batches = iter(data.train_dataloader())
    for _ in range(WARMUP):
        next(batches)
    started = time.perf_counter()
    for _ in range(STEPS - WARMUP):
        next(batches)
    return (time.perf_counter() - started) / (STEPS - WARMUP)


def measure(config: DictConfig, *, peers: bool) -> Results:
    """Measure the seconds per step of both loops, in turns.

    Args:
        config: `conf/benchmark.yaml`; `model` are overrides of `conf/train.yaml`.
        peers: unused: the bare loop is the peer.

    Raises:
        ConfigError: the model's data have too few batches for the steps of a round.
    """
    quiet_lightning()
    job = Job.compose(config.model)
    plan = Plan.read(job.config, job.choices)
    data = plan.load_data()
    if len(data.train_dataloader()) < STEPS:
        raise ConfigError(
            f"model={list(config.model)} has less than {STEPS} batches in an epoch; use a smaller batch size."
        )
    times = Times(BARE, {BARE: [], REPEATED: [], TRAINER: []})
    loaded: list[float] = []
    with progress_bar(config.rounds * STEPS) as on_progress:
        for _ in range(config.rounds):
            others = {name: bare_loop(plan.build_task(), plan, data.train_dataloader()) for name in (BARE, REPEATED)}
            between = InterleavedSteps(others, on_progress)
            with tempfile.TemporaryDirectory() as folder:
                train_with_trainer(plan.build_task(), data, Path(folder), between)
            for name, seconds in between.seconds.items():
                times.seconds[name] += seconds
            loaded.append(loading_seconds(data))
    rows = [
        {"what": name, "step_ms": 1000 * times.median(name), "throughput": times.speed(name)} for name in times.seconds
    ]
    batch = statistics.median(loaded)
    rows.append({"what": LOADING, "step_ms": 1000 * batch, "throughput": times.median(BARE) / batch})
    notes = [
        "throughput: against the bare loop, the median of the steps' ratios; of data loading, the medians' ratio.",
        "again: a second bare loop; what its throughput differs from 1 is noise.",
        "Trainer: with metrics.csv and W&B offline every 10 steps, throughput, exact_resume and finite_loss; without "
        "progress bar, checkpoints, save_on_interrupt and validation.",
    ]
    return Results("overhead", rows, SHOWN, plot=plot, notes=notes)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plot the milliseconds per step."""
    plot_bars(rows, path, name="what", value="step_ms", label="ms per step")
