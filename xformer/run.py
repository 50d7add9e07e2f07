"""One run: validate, build, fit, test, summarise."""

import logging
import warnings
from dataclasses import asdict
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from xformer import build, compatibility, console, continuation, launch
from xformer.callbacks.throughput import Throughput
from xformer.configuration import validate
from xformer.data.base import DataModule
from xformer.denormals import flush_denormals
from xformer.inheritance import inherit
from xformer.job import Job
from xformer.logging.wandb import begin
from xformer.matching import match
from xformer.record import cost
from xformer.record.recording import recording
from xformer.record.summary import Monitor, Summary
from xformer.runs import finished
from xformer.tasks.base import Task


def run(job: Job) -> float | None:
    """Run a job and leave its summary behind, however it ends.

    Returns:
        The best value of the monitored metric, for a sweeper that searches; None where the run was skipped.

    Raises:
        XformerError: what the user can mend.
    """
    flush_denormals()
    quieten()
    done = continuation.finished(job)
    if done is not None:
        console.note(f"Already finished: {job.name} in {job.directory}")
        return done.monitor.best if done.monitor else None
    epilogue = None
    with recording(job) as summary:
        plan, checkpoint = _plan(job)
        seed_everything(job.config.seed, verbose=False)
        data = plan.load_data()
        if launch.is_main_process():
            data.save(job.directory)
        if job.config.get("match") is not None:
            plan = _match(summary, job, plan)
        task = plan.build_task()
        if job.config.init_from is not None:
            _inherit(summary, task, Path(job.config.init_from))
        _measure(summary, task, data)
        trainer = build.build_trainer(job, task)
        launch.check_world_size(trainer)
        begin(summary)
        if launch.is_main_process():
            console.header(job, trainer, data.describe(), summary)
        if job.config.compile:
            task.model.compile()
        with build.refusals("trainer", job.config.trainer):
            trainer.fit(task, data, ckpt_path=checkpoint)
        _evaluate(trainer, task, data, summary, job)
        epilogue = task.epilogue(data)
    if summary.status == "finished" and launch.is_main_process():
        console.results(job, summary, epilogue)
    return summary.monitor.best if summary.monitor else None


def _plan(job: Job) -> tuple[build.Plan, Path | None]:
    """Refuse everything that can be refused before data is loaded; what to build, and where to continue from."""
    validate(job.config)
    compatibility.check(job.config, job.choices)
    job.forget(compatibility.unused(job.config))
    launch.check_sweep(job)
    if job.config.init_from is not None:
        finished(Path(job.config.init_from))
    build.check_trainer(job)
    plan = build.Plan.of(job.config)
    return plan, continuation.checkpoint(job)


def _match(summary: Summary, job: Job, plan: build.Plan) -> build.Plan:
    """Give the model the size of a reference, and say what that took."""
    plan, matched = match(job.config, plan)
    summary.matched = asdict(matched)
    if launch.is_main_process():
        console.note(str(matched))
    return plan


def _inherit(summary: Summary, task: Task, other: Path) -> None:
    """Start from another run's weights, and say what was not taken."""
    inherited = inherit(task, other)
    summary.inherited = asdict(inherited)
    if launch.is_main_process():
        console.note(str(inherited))


def _measure(summary: Summary, task: Task, data: DataModule) -> None:
    """What is known of the budget before training."""
    summary.floors, summary.data_fingerprint = dict(data.floors), data.fingerprint
    summary.floor_of = data.floor_of if data.floors else None
    summary.attention = {slot.name: summary.choices[key] for key, slot in task.model.slots.items()}
    summary.parameters, summary.flops_per_token = cost.parameters(task), cost.flops(task, data.facts)


def _evaluate(trainer: Trainer, task: Task, data: DataModule, summary: Summary, job: Job) -> None:
    """Validate and test the best weights, and take in what training measured."""
    metrics: dict[str, float | None] = {
        name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("train/")
    }
    if not metrics:  # a finished run was continued, with nothing left to train
        metrics = continuation.trained(job)
    throughput = next((c for c in trainer.callbacks if isinstance(c, Throughput)), None)  # type: ignore[attr-defined]
    if throughput:
        summary.tokens_seen, summary.tokens_per_second = throughput.tokens_seen, throughput.tokens_per_second
        summary.wall_seconds = throughput.earlier_seconds
    keepers = (c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor)
    keeper = next(keepers, None)
    best, step = (keeper.best_model_path if keeper else ""), trainer.global_step
    if best:
        step = torch.load(best, map_location="cpu", weights_only=True, mmap=True)["global_step"]
    elif keeper:  # stopped before the first validation: keep what there is
        trainer.save_checkpoint(Path(keeper.dirpath or job.directory) / "last.ckpt")
    loggers, trainer.loggers = trainer.loggers, []  # the curve has these values already, each at its own step
    trainer.validate(task, data, ckpt_path=best or None, verbose=False)
    metrics |= {name: value.item() for name, value in trainer.callback_metrics.items()}
    trainer.loggers = loggers
    if data.test_dataloader():
        trainer.test(task, data, ckpt_path=best or None, verbose=False)
        metrics |= {name: value.item() for name, value in trainer.callback_metrics.items()}
    monitor = job.config.monitor
    summary.metrics = dict(metrics)
    summary.monitor = Monitor(monitor.name, monitor.mode, metrics.get(monitor.name), step)


_NOISE = (
    ".*does not have many workers.*",
    ".*`max_epochs` was not set.*",
    ".*`isinstance.treespec, LeafSpec.` is deprecated.*",
    "Checkpoint directory .* exists and is not empty.*",
    ".*is smaller than the logging interval.*",  # of steps, which go on from epoch to epoch
)


def quieten() -> None:
    """Leave on the screen what a person needs: Lightning's notes about hardware and loaders are in the summary."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
