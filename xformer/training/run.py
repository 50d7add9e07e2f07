"""One run: read, build, fit, test, summarise."""

import tempfile
from dataclasses import asdict
from pathlib import Path

from lightning.pytorch import Trainer, seed_everything
from omegaconf import OmegaConf

from xformer.callbacks.interrupt import listening
from xformer.config.declared import without_effect
from xformer.config.options import replaced, used_plugins
from xformer.config.plan import Plan
from xformer.config.redact import resolved
from xformer.core import console, threads
from xformer.core.denormals import flush_denormals
from xformer.core.devices import is_main_process
from xformer.data.base import DataModule
from xformer.runs import sweep
from xformer.runs.finished import finished
from xformer.runs.job import CONFIG_FILE, Job
from xformer.runs.lock import is_empty
from xformer.runs.provenance import plugin_state
from xformer.runs.storage import explaining
from xformer.runs.summary import Summary
from xformer.tasks.base import Task
from xformer.training import cost, launch, screen
from xformer.training.compilation import compile_step
from xformer.training.evaluate import evaluate_best
from xformer.training.matching import match
from xformer.training.recording import Record, recording
from xformer.training.resume import Earlier, Start, truncate_metrics
from xformer.training.trainer import build_loggers, build_trainer, check_monitors, refusals, write_config
from xformer.training.warm_start import inherit


def run(job: Job) -> float | None:
    """Run a job and leave its summary behind, however it ends.

    Nothing is written into a directory that holds anything before all that can be refused has been.

    Returns:
        The best value of the monitored metric, for a sweeper that searches; None where the run was skipped.

    Raises:
        XformerError: what the user can mend.
    """
    flush_denormals()
    screen.quieten()
    epilogue = None
    places = _places(job)
    # Twice: what the run writes, and then its record of that.
    with listening(), explaining(places), recording(job) as record, explaining(places):
        summary = record.summary
        plan, trainer = _read(job, summary), build_trainer(job)
        record.acquire()
        earlier = Earlier(job)
        if (done := earlier.finished()) is not None:
            console.note(f"Already finished, and left as it is: {job.directory}")
            return done.monitor.best if done.monitor else None
        start = earlier.start()
        if is_empty(job.directory):
            record.claim()
        _share(job, summary, resumed=start is not None)
        seed_everything(plan.seed, verbose=False)
        data = plan.load_data()
        plan = match(plan)
        task = _built(job, plan, summary)
        check_monitors(trainer, task)
        _tell(earlier.check(start, plan, trainer))
        _begin(job, record, trainer, data, start)
        compile_step(task, data, job.config.compile, trainer.strategy.root_device)
        with refusals("trainer", job.config.trainer):
            trainer.fit(task, data, ckpt_path=None if start is None else start.checkpoint)
        evaluate_best(trainer, task, data, summary, job)
        epilogue = None if job.sweep else task.epilogue(data)
    if summary.status == "finished" and is_main_process():
        screen.results(job, summary, epilogue)
    return summary.monitor.best if summary.monitor else None


def _places(job: Job) -> dict[str, Path]:
    """What decides where a run writes, and where that is; the configuration is not checked yet."""
    cache = OmegaConf.select(job.config, "cache", throw_on_resolution_failure=False)
    return {"hydra.run.dir": job.directory, "cache": Path(str(cache)), "TMPDIR": Path(tempfile.gettempdir())}


def _read(job: Job, summary: Summary) -> Plan:
    """Refuse everything that can be refused before data is loaded; what to build.

    The summary learns what the configuration is but its options and values: only now do the classes stand where it
    names them.
    """
    plan = Plan.read(job.config, job.choices)
    launch.check_sweep(job)
    if job.config.init_from is not None:
        finished(Path(job.config.init_from))
    config = resolved(job.config)
    summary.by_hand = replaced({**config, "logger": None}, job.choices)
    summary.without_effect = without_effect(config["callbacks"])
    summary.plugins = {found.package: dict(plugin_state(found)) for found in used_plugins(config, job.choices)}
    return plan


def _share(job: Job, summary: Summary, *, resumed: bool) -> None:
    """Settle how many threads compute, for this run and whoever resumes it."""
    under_way = sweep.current()
    found = threads.number(
        job.config,
        at_once=under_way.at_once if under_way else 1,
        earlier=job.directory / CONFIG_FILE if resumed else None,
    )
    job.config.threads = found
    threads.use(found)
    summary.hardware["torch_threads"] = found


def _built(job: Job, plan: Plan, summary: Summary) -> Task:
    """The task, with another run's weights where it starts from one; the summary learns what it is and costs."""
    task, data = plan.build_task(), plan.data
    if plan.matched is not None:
        summary.matched = asdict(plan.matched)
        _tell(str(plan.matched))
    if job.config.init_from is not None:
        inherited = inherit(task, Path(job.config.init_from))
        summary.inherited = asdict(inherited)
        _tell(str(inherited))
    summary.trivial_baselines, summary.data_fingerprint = dict(data.trivial_baselines), data.fingerprint
    summary.baseline_metric = data.baseline_metric if data.trivial_baselines else None
    summary.attention = {slot.name: summary.choices[key] for key, slot in task.model.slots.items()}
    summary.parameters, summary.flops_per_token = cost.parameters(task), cost.flops(task, data.spec)
    return task


def _begin(job: Job, record: Record, trainer: Trainer, data: DataModule, start: Start | None) -> None:
    """Take the directory, and write into it what stands there before the first step."""
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
        screen.header(job, trainer, data.describe(), record.summary)


def _tell(sentence: str | None) -> None:
    if sentence is not None and is_main_process():
        console.note(sentence)
