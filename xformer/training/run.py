"""One run: validate, build, fit, test, summarise."""

import logging
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path

from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf

from xformer.callbacks.interrupt import handling_signals
from xformer.callbacks.throughput import Throughput
from xformer.callbacks.train_metrics import TrainMetrics
from xformer.config import compatibility
from xformer.config.ignored_keys import find_ignored_keys
from xformer.config.options import replaced_targets
from xformer.config.plan import Plan
from xformer.config.redact import resolved_config
from xformer.config.validate import validate
from xformer.core import console, threads
from xformer.core.denormals import flush_denormals
from xformer.core.devices import is_main_process
from xformer.data.base import DataModule
from xformer.runs import checkpoints, sweep
from xformer.runs.job import CONFIG_FILE, Job
from xformer.runs.lock import is_empty
from xformer.runs.open_run import finished_summary
from xformer.runs.storage import explaining_disk_errors
from xformer.runs.summary import MonitoredMetric, Summary
from xformer.tasks.base import Task
from xformer.training import compilation, console_report, cost, launch_checks, resume
from xformer.training.matching import match_size
from xformer.training.recording import record_run
from xformer.training.trainer import as_config_errors, build_loggers, build_trainer, check_trainer, write_config
from xformer.training.warm_start import load_warm_start


def run(job: Job) -> float | None:
    """Run a job and leave its summary behind, however it ends.

    Nothing is written into a directory that holds anything before all that can be refused has been.

    Returns:
        The best value of the monitored metric, for a sweeper that searches; None where the run was skipped.

    Raises:
        XformerError: what the user can mend.
    """
    flush_denormals()
    quiet_lightning()
    epilogue = None
    locations = _storage_locations(job)
    # Twice: what the run writes, and then its record of that.
    with (
        handling_signals(),
        explaining_disk_errors(locations),
        record_run(job) as record,
        explaining_disk_errors(locations),
    ):
        summary = record.summary
        plan = _plan(job)
        _record_identity(summary, job)
        record.acquire()
        done = resume.finished_earlier(job)
        if done is not None:
            console.info(f"Already finished, and left as it is: {job.directory}")
            return done.monitor.best if done.monitor else None
        start = resume.find_resume_point(job)
        if is_empty(job.directory):
            record.claim()
        _set_threads(job, summary, resumed=start is not None)
        seed_everything(job.config.seed, verbose=False)
        data = plan.load_data()
        if job.config.get("match") is not None:
            plan = _match(summary, job, plan)
        task = plan.build_task()
        if job.config.init_from is not None:
            _warm_start(summary, task, Path(job.config.init_from))
        _measure(summary, task, data)
        trainer = build_trainer(job, task)
        launch_checks.check_world_size(trainer)
        if start is not None:
            resume.check_same_data_and_processes(job, start, data, trainer)
            _print(resume.schedule_warning(job, start, plan.schedule))
        for logger in build_loggers(job):
            record.loggers.append(logger)
        trainer.loggers = [*record.loggers]
        record.claim()
        resume.truncate_metrics(trainer.loggers, start)
        if is_main_process():
            write_config(job)
            data.save(job.directory)
        for logger in record.loggers:
            logger.begin(summary)
        if is_main_process():
            console_report.run_header(job, trainer, data.describe(), summary)
        compilation.compile_step(task, data, job.config.compile, trainer.strategy.root_device)
        with as_config_errors("trainer", job.config.trainer):
            trainer.fit(task, data, ckpt_path=None if start is None else start.checkpoint)
        _evaluate(trainer, task, data, summary, job)
        epilogue = None if job.sweep else task.epilogue(data)
    if summary.status == "finished" and is_main_process():
        console_report.run_results(job, summary, epilogue)
    return summary.monitor.best if summary.monitor else None


def _storage_locations(job: Job) -> dict[str, Path]:
    """What decides where a run writes, and where that is; the configuration is not checked yet."""
    cache = OmegaConf.select(job.config, "cache", throw_on_resolution_failure=False)
    return {"hydra.run.dir": job.directory, "cache": Path(str(cache)), "TMPDIR": Path(tempfile.gettempdir())}


def _plan(job: Job) -> Plan:
    """Refuse everything that can be refused from the configuration alone; what to build."""
    validate(job.config)
    compatibility.check_compatibility(job.config, job.choices)
    compilation.check_compilation(job.config)
    job.drop_unused(compatibility.unused_slots(job.config))
    launch_checks.check_sweep(job)
    if job.config.init_from is not None:
        finished_summary(Path(job.config.init_from))
    check_trainer(job)
    return Plan.of(job.config)


def _record_identity(summary: Summary, job: Job) -> None:
    """What the configuration is but its options and values: only now do the classes stand where it names them."""
    config = resolved_config(job.config)
    summary.target_overrides = replaced_targets({**config, "logger": None}, job.choices)
    summary.ignored_keys = find_ignored_keys(config["callbacks"])


def _set_threads(job: Job, summary: Summary, *, resumed: bool) -> None:
    """Settle how many threads compute, for this run and whoever resumes it."""
    under_way = sweep.current_sweep()
    found = threads.thread_count(
        job.config,
        at_once=under_way.at_once if under_way else 1,
        earlier=job.directory / CONFIG_FILE if resumed else None,
    )
    job.config.threads = found
    threads.set_threads(found)
    summary.hardware["torch_threads"] = found


def _match(summary: Summary, job: Job, plan: Plan) -> Plan:
    """Give the model the size of a reference, and say what that took."""
    plan, matched = match_size(job.config, plan)
    summary.matched = asdict(matched)
    _print(str(matched))
    return plan


def _warm_start(summary: Summary, task: Task, other: Path) -> None:
    """Start from another run's weights, and say what was not taken."""
    warm_start = load_warm_start(task, other)
    summary.warm_start = asdict(warm_start)
    _print(str(warm_start))


def _print(sentence: str | None) -> None:
    if sentence is not None and is_main_process():
        console.info(sentence)


def _measure(summary: Summary, task: Task, data: DataModule) -> None:
    """What is known of the budget before training."""
    summary.floors, summary.data_fingerprint = dict(data.floors), data.fingerprint
    summary.floor_of = data.floor_of if data.floors else None
    summary.attention = {slot.name: summary.choices[key] for key, slot in task.model.slots.items()}
    summary.parameters, summary.flops_per_token = (
        cost.trainable_parameters(task),
        cost.training_flops_per_token(task, data.facts),
    )


def _evaluate(trainer: Trainer, task: Task, data: DataModule, summary: Summary, job: Job) -> None:
    """Validate and test the best weights, and take in what training measured."""
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
    elif keeper:  # stopped before the first validation: keep what there is
        trainer.save_checkpoint(Path(keeper.dirpath or job.directory) / checkpoints.LAST)
    end = trainer.global_step
    loggers, trainer.loggers = trainer.loggers, []  # the curve has the values of validation already
    trainer.validate(task, data, ckpt_path=best or None, verbose=False)
    metrics |= {name: value.item() for name, value in trainer.callback_metrics.items()}
    if data.test_dataloader():
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


_NOISE = (
    ".*does not have many workers.*",
    ".*`max_epochs` was not set.*",
    ".*`isinstance.treespec, LeafSpec.` is deprecated.*",
    "Checkpoint directory .* exists and is not empty.*",
    ".*is smaller than the logging interval.*",  # of steps, which go on from epoch to epoch
)


def quiet_lightning() -> None:
    """Leave on the screen what a person needs: Lightning's notes about hardware and loaders are in the summary."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
