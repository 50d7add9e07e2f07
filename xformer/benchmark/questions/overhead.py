"""What the Trainer costs: the same training steps under it, with logging on, and in a bare PyTorch loop.

Both sides train the same model (a decoder of 4 layers, d 256, 256 tokens, batch 8) on the same batches with the same
optimiser, schedule and clipping. They take turns, so that a noisy machine is noisy for both, and the bare loop runs
twice a round: the ratio of the two is the control, which shows what the noise alone makes. The loader of the data runs
alone, too: it must not be what the loop waits for.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig

from xformer.benchmark.plots import bars
from xformer.benchmark.results import Results, Row
from xformer.benchmark.timing import AGAIN, Times
from xformer.build import Plan
from xformer.callbacks.finite import FiniteLoss
from xformer.callbacks.resume import ExactResume
from xformer.callbacks.throughput import Throughput
from xformer.configuration import CONF
from xformer.data.base import DataModule
from xformer.logging.metrics_csv import MetricsCSV
from xformer.logging.wandb import finish, wandb_logger
from xformer.run import quieten
from xformer.tasks.base import Task

BARE, LOADING = "bare loop", "data loading alone"
STEPS, WARMUP = 20, 3
SHOWN = {"what": ("what", ""), "step_ms": ("ms per step", ".1f"), "throughput": ("throughput", ".3f")}


class Stopwatch(Callback):
    """Seconds per step, from the end of the last warm-up step to the end of the last step."""

    def __init__(self) -> None:
        self._started = self._stopped = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start after the warm-up, and stop every time."""
        now = time.perf_counter()
        if trainer.global_step == WARMUP:
            self._started = now
        self._stopped = now

    @property
    def seconds_per_step(self) -> float:
        """Of the steps after the warm-up."""
        return (self._stopped - self._started) / (STEPS - WARMUP)


def under_the_trainer(task: Task, data: DataModule, directory: Path) -> float:
    """Seconds per step with the callbacks and loggers of a run."""
    stopwatch = Stopwatch()
    loggers = [
        MetricsCSV(directory),
        wandb_logger(directory, {}, {}, "overhead", project="xformer", entity=None, group=None, mode="offline"),
    ]
    trainer = Trainer(
        max_steps=STEPS,
        callbacks=[Throughput(warmup=WARMUP), ExactResume(), FiniteLoss(every=50), stopwatch],
        logger=loggers,
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
    finish(0)
    return stopwatch.seconds_per_step


def bare(task: Task, plan: Plan, batches: Iterator[Any]) -> float:
    """Seconds per step of the loop that one would write by hand."""
    optimizer = plan.optimizer(task, True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: plan.schedule(step, STEPS))
    task.train()
    started = 0.0
    for step in range(STEPS):
        if step == WARMUP:
            started = time.perf_counter()
        loss = task.step(next(batches)).loss
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return (time.perf_counter() - started) / (STEPS - WARMUP)


def loading(data: DataModule) -> float:
    """Seconds per batch of the loader alone, as the training loop asks for them."""
    batches = iter(data.train_dataloader())
    for _ in range(WARMUP):
        next(batches)
    started = time.perf_counter()
    for _ in range(STEPS - WARMUP):
        next(batches)
    return (time.perf_counter() - started) / (STEPS - WARMUP)


def measure(config: DictConfig, *, peers: bool) -> Results:
    """Seconds per step of both sides, in turns.

    Args:
        config: `conf/benchmark.yaml`; `model` are overrides of `conf/train.yaml`.
        peers: unused: the bare loop is the peer.
    """
    quieten()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        plan = Plan.of(compose("train", overrides=list(config.model)))
    data = plan.load_data()
    task = plan.build_task()
    times = Times(BARE, {BARE: [], AGAIN: [], "Trainer": [], LOADING: []})
    for _ in range(config.rounds):
        times.seconds[BARE].append(bare(task, plan, iter(data.train_dataloader())))
        with tempfile.TemporaryDirectory() as folder:
            times.seconds["Trainer"].append(under_the_trainer(task, data, Path(folder)))
        times.seconds[AGAIN].append(bare(task, plan, iter(data.train_dataloader())))
        times.seconds[LOADING].append(loading(data))
    rows = [
        {"what": name, "step_ms": 1000 * times.median(name), "throughput": times.speed(name)} for name in times.seconds
    ]
    notes = ["throughput: against the bare loop, the median of the rounds' ratios; `again` is that loop once more."]
    return Results("overhead", rows, SHOWN, plot=plot, notes=notes)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Milliseconds per step."""
    bars(rows, path, name="what", value="step_ms", label="ms per step")
