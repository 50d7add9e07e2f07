"""Console output of a run: a header before training, results after it, and a table at the end of a sweep."""

import logging
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Trainer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from xformer.config.groups import slots
from xformer.config.identity import key_of
from xformer.core import devices
from xformer.core.program import train_command
from xformer.runs import sweep
from xformer.runs.job import Job
from xformer.runs.summary import Summary, read_summary

_SHOWN = (("task", "data", "architecture", "size"), ("attention", "position"), ("optimizer", "schedule"))
"""The groups of each line; additional slots of a group follow it if the run uses them."""


def run_header(job: Job, trainer: Trainer, data: str, summary: Summary) -> None:
    """Print the choices, parameters, data, device and budget of a run; in a sweep's later cells, only what differs."""
    table, shown = Table.grid(padding=(0, 2)), job.shown_choices
    if (under_way := sweep.current_sweep()) is not None:
        table.add_row("[bold]sweep[/]", f"{sweep_progress(under_way, job.number)}")
        table.add_row("", f"[bold]{escape('  '.join(job.varied))}[/]")
    for groups in () if job.number else _SHOWN:
        keys = [key for group in groups for key in (group, *(k for k, of in slots().items() if of == group))]
        chosen = "  ".join(f"{key}=[bold]{escape(shown[key])}[/]" for key in keys if key in shown)
        table.add_row("[bold]xformer[/]" if groups is _SHOWN[0] else "", chosen)
    budget, times = job.config.data.loader.get("tokens_per_batch"), job.config.trainer.accumulate_grad_batches
    batch = f"{budget * times:,} tokens" if budget else f"{job.config.data.loader.batch_size * times} sequences"
    about = {
        "model": f"{summary.parameters:,} parameters, {_si(summary.flops_per_token or 0)}FLOPs per token",
        "data": data,
        "training": f"{trainer.max_steps:,} steps of {batch}, seed {job.config.seed}",
        "device": f"{trainer.world_size} x {_device(trainer, summary)}, {_threads(job)}, precision {trainer.precision}",
        "directory": str(job.directory),
    }
    for name, line in about.items():
        if not job.number or name in ("model", "directory"):
            table.add_row(f"[dim]{name}[/]", escape(line))
    Console().print(table, soft_wrap=True)


def sweep_progress(under_way: sweep.Sweep, number: int) -> str:
    """The progress of a sweep: `cell 3 of 12, 14 minutes left`; without a time in the first cell, number 0."""
    seconds = under_way.seconds_left(number)
    return f"cell {number + 1} of {under_way.cells}" + (f", {_duration(seconds)} left" if seconds is not None else "")


def sweep_table(under_way: sweep.Sweep, files: Sequence[Path]) -> None:
    """Print a table of a sweep's cells, and the command that compares them.

    Args:
        under_way: the sweep that has ended.
        files: the cells' summaries, in the order of the cells.
    """
    found = [(file.parent, read_summary(file.parent)) for file in files]
    typed = [dict((key_of(o), o.partition("=")[2]) for o in summary.overrides) for _, summary in found]
    keys = [key for key in dict.fromkeys(key_of(key) for key in under_way.varies)]
    names = dict.fromkeys(s.monitor.name for _, s in found if s.monitor)
    metrics = [name for monitored in names for name in (monitored, monitored.replace("val/", "test/"))]
    table = Table(title=f"Sweep: {_ended(found)}", title_justify="left")
    for name in keys or ["cell"]:
        table.add_column(name, overflow="fold")
    for name in metrics:
        table.add_column(name, justify="right")
    for name in ("time", "status"):
        table.add_column(name, justify="right" if name == "time" else "left")
    for (directory, summary), chosen in zip(found, typed, strict=True):
        values = (summary.metrics.get(name) for name in metrics)
        table.add_row(
            *(escape(chosen.get(key, "")) for key in keys) if keys else [escape(directory.name)],
            *("" if value is None else f"{value:.4f}" for value in values),
            f"{summary.wall_seconds or 0:.0f} s",
            summary.status,
        )
    console = Console()
    console.print(table)
    command = f"xformer compare {shlex.quote(under_way.directory)}"
    console.print(f"[dim]{'next':<11}[/]{escape(command)}", soft_wrap=True, highlight=False)


def _ended(found: Sequence[tuple[Path, Summary]]) -> str:
    """A count of how a sweep's cells ended: `12 cells, 11 finished, 1 failed`."""
    ends = [summary.status for _, summary in found]
    many = "cell" if len(ends) == 1 else "cells"
    return ", ".join([f"{len(ends)} {many}", *(f"{ends.count(end)} {end}" for end in dict.fromkeys(ends))])


def run_results(job: Job, summary: Summary, epilogue: str | None) -> None:
    """Print the results of a run: metrics beside trivial baselines, what the run cost, and a next command to try.

    A cell of a sweep has one line, because the sweep ends with a table of all cells.
    """
    console = Console()
    if job.sweep:
        console.print(_result(job, summary), soft_wrap=True, highlight=False)
        return
    if epilogue:
        console.rule("A sample of the trained model", align="left")
        console.print(epilogue, highlight=False, markup=False)
    table = Table(title="Results", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in summary.metrics.items():
        if name.startswith(("train/", "val/", "test/")):
            table.add_row(name, "nan" if value is None else f"{value:.4f}")
    for name, value in summary.trivial_baselines.items():
        table.add_row(f"trivial baseline: {name} ({summary.baseline_metric})", f"{value:.4f}", style="dim")
    console.print(table)
    about = {
        "cost": f"{summary.wall_seconds:.0f} s, {_speed(summary)}peak memory {_si(summary.peak_memory_bytes or 0)}B",
        "directory": str(job.directory),
        "next": next_command(job),
    }
    for name, line in about.items():
        console.print(f"[dim]{name:<11}[/]{escape(line)}", soft_wrap=True, highlight=False)


def _result(job: Job, summary: Summary) -> str:
    wanted = (job.config.monitor.name, job.config.monitor.name.replace("val/", "test/"))
    found = [f"{name} {value:.4f}" for name in wanted if (value := summary.metrics.get(name)) is not None]
    return "  ".join([f"[dim]{'result':<9}[/]", *map(escape, job.varied), *found, f"{summary.wall_seconds:.0f} s"])


def next_command(job: Job) -> str:
    """A suggested next command: another attention first, then the same configuration with more seeds."""
    dropped = ("attention=", "seed=", "hydra.", "cache=", "resume=", "skip_finished=")
    typed = [shlex.quote(override) for override in job.overrides if not override.startswith(dropped)]
    if job.choices["attention"] == "full" and not job.choices["architecture"].startswith("decoder"):
        return " ".join([train_command(), *typed, "attention=linformer"])
    return " ".join([f"{train_command()} -m", *typed, f"attention={job.choices['attention']}", "seed=0,1,2"])


def _device(trainer: Trainer, summary: Summary) -> str:
    device = trainer.strategy.root_device
    known = str(summary.hardware.get("cpu")) if device.type == "cpu" else device.type
    return devices.device_name(device) or known


def _threads(job: Job) -> str:
    number = job.config.threads
    return "1 thread" if number == 1 else f"{number} threads"


def _duration(seconds: float) -> str:
    """A duration in words: `40 seconds`, `14 minutes`, `3.5 hours`."""
    if seconds < 90:
        whole = max(1, round(seconds))
        return f"{whole} second{'s' if whole > 1 else ''}"
    return f"{round(seconds / 60)} minutes" if seconds < 90 * 60 else f"{seconds / 3600:.1f} hours"


def _speed(summary: Summary) -> str:
    return f"{summary.tokens_per_second:,.0f} tokens/s, " if summary.tokens_per_second else ""


def _si(number: float | int) -> str:
    for unit in ("", "k", "M", "G", "T"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} P"


_NOISE = (
    ".*does not have many workers.*",
    ".*`max_epochs` was not set.*",
    ".*`isinstance.treespec, LeafSpec.` is deprecated.*",
    "Checkpoint directory .* exists and is not empty.*",
    ".*is smaller than the logging interval.*",  # in steps, which are counted over epochs
)


def quiet_lightning() -> None:
    """Silence Lightning's messages about hardware and data loaders, which the run's summary holds."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
