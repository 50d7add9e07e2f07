"""One run: read the configuration, build, fit, test and write the summary."""

import tempfile
from dataclasses import asdict
from pathlib import Path

from lightning.pytorch import Trainer, seed_everything
from omegaconf import OmegaConf

from xformer.callbacks.interrupt import handling_signals
from xformer.config.ignored_keys import find_ignored_keys
from xformer.config.options import replaced_targets, used_plugins
from xformer.config.plan import Plan
from xformer.config.redact import resolved_config
from xformer.core import console, threads
from xformer.core.denormals import flush_denormals
from xformer.core.devices import is_main_process
from xformer.data.base import DataModule
from xformer.runs import sweep
from xformer.runs.job import CONFIG_FILE, Job
from xformer.runs.lock import is_empty
from xformer.runs.open_run import finished_summary
from xformer.runs.provenance import plugin_state
from xformer.runs.storage import explaining_disk_errors
from xformer.runs.summary import Summary
from xformer.tasks.base import Task
from xformer.training import console_report, cost, launch_checks
from xformer.training.compilation import compile_step
from xformer.training.evaluate import evaluate_best
from xformer.training.matching import match_size
from xformer.training.resume import Earlier, ResumePoint, truncate_metrics
from xformer.training.run_record import RunRecord, record_run
from xformer.training.trainer import as_config_errors, build_loggers, build_trainer, check_monitors, write_config
from xformer.training.warm_start import load_warm_start


def run(job: Job) -> float | None:
    """Run a job and write its summary, however it ends.

    Nothing is written into a directory that is not empty until all checks have passed.

    Returns:
        The best value of the monitored metric, for a sweeper that searches; None if the run was skipped.

    Raises:
        XformerError: an error that the user can correct.
    """
    flush_denormals()
    console_report.quiet_lightning()
    epilogue = None
    locations = _storage_locations(job)
    # Twice: for the files of the run, and for its record.
    with (
        handling_signals(),
        explaining_disk_errors(locations),
        record_run(job) as record,
        explaining_disk_errors(locations),
    ):
        summary = record.summary
        plan, trainer = _read(job, summary), build_trainer(job)
        record.acquire()
        earlier = Earlier(job)
        if (done := earlier.finished()) is not None:
            console.info(f"Already finished, and left as it is: {job.directory}")
            return done.monitor.best if done.monitor else None
        start = earlier.start()
        if is_empty(job.directory):
            record.claim()
        _print(job.tuning_hint)
        _set_threads(job, summary, resumed=start is not None)
        seed_everything(plan.seed, verbose=False)
        data = plan.load_data()
        plan = match_size(plan)
        task = _built(job, plan, summary)
        check_monitors(trainer, task)
        _print(earlier.check(start, plan, trainer))
        _begin(job, record, trainer, data, start)
        compile_step(task, data, job.config.compile, trainer.strategy.root_device)
        with as_config_errors("trainer", job.config.trainer):
            trainer.fit(task, data, ckpt_path=None if start is None else start.checkpoint)
        evaluate_best(trainer, task, data, summary, job)
        epilogue = None if job.sweep else task.epilogue(data)
    if summary.status == "finished" and is_main_process():
        console_report.run_results(job, summary, epilogue)
    return summary.monitor.best if summary.monitor else None


def _storage_locations(job: Job) -> dict[str, Path]:
    """The settings that decide where a run writes, and their paths; the configuration is not checked yet."""
    cache = OmegaConf.select(job.config, "cache", throw_on_resolution_failure=False)
    return {"hydra.run.dir": job.directory, "cache": Path(str(cache)), "TMPDIR": Path(tempfile.gettempdir())}


def _read(job: Job, summary: Summary) -> Plan:
    """Run all checks that need no data, and return the plan of what to build.

    The target overrides and ignored keys are recorded in the summary here, where the classes are known.
    """
    summary.tuning = job.tuning
    plan = Plan.read(job.config, job.choices)
    launch_checks.check_sweep(job)
    if job.config.init_from is not None:
        finished_summary(Path(job.config.init_from))
    config = resolved_config(job.config)
    summary.target_overrides = replaced_targets({**config, "logger": None}, job.choices)
    summary.ignored_keys = find_ignored_keys(config["callbacks"])
    summary.plugins = {found.package: dict(plugin_state(found)) for found in used_plugins(config, job.choices)}
    return plan


def _set_threads(job: Job, summary: Summary, *, resumed: bool) -> None:
    """Set the number of threads, for this run and its resumptions."""
    under_way = sweep.current_sweep()
    found = threads.thread_count(
        job.config,
        at_once=under_way.at_once if under_way else 1,
        earlier=job.directory / CONFIG_FILE if resumed else None,
    )
    job.config.threads = found
    threads.set_threads(found)
    summary.hardware["torch_threads"] = found


def _built(job: Job, plan: Plan, summary: Summary) -> Task:
    """Build the task, load another run's weights if `init_from` names one, and record cost in the summary."""
    task, data = plan.build_task(), plan.data
    if plan.matched is not None:
        summary.matched = asdict(plan.matched)
        _print(str(plan.matched))
    if job.config.init_from is not None:
        warm_start = load_warm_start(task, Path(job.config.init_from))
        summary.warm_start = asdict(warm_start)
        _print(str(warm_start))
    summary.trivial_baselines, summary.data_fingerprint = dict(data.trivial_baselines), data.fingerprint
    summary.baseline_metric = data.baseline_metric if data.trivial_baselines else None
    summary.attention = {slot.name: job.shown_choices[key] for key, slot in task.model.slots.items()}
    summary.parameters, summary.flops_per_token = (
        cost.trainable_parameters(task),
        cost.training_flops_per_token(task, data.spec),
    )
    return task


def _begin(job: Job, record: RunRecord, trainer: Trainer, data: DataModule, start: ResumePoint | None) -> None:
    """Take over the directory, and write the files that precede the first step."""
    for logger in build_loggers(job):
        record.loggers.append(logger)
    trainer.loggers = [*record.loggers]
    record.claim()
    truncate_metrics(trainer.loggers, start)
    if is_main_process():
        write_config(job)
        data.save(job.directory)
    for logger in record.loggers:
        logger.begin(record.summary)
    if is_main_process():
        console_report.run_header(job, trainer, data.describe(), record.summary)


def _print(sentence: str | None) -> None:
    if sentence is not None and is_main_process():
        console.info(sentence)
