"""What a person reads on the screen: the header before a run, the results after it, an error in a sentence."""

import shlex
from collections.abc import Mapping
from typing import cast

from lightning.pytorch import Trainer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from xformer.configuration import slots, target
from xformer.core import devices
from xformer.data.base import DataModule
from xformer.job import Job
from xformer.record.summary import Summary

_SHOWN = (("task", "data", "architecture", "size"), ("attention", "position"), ("optimizer", "schedule"))
"""Groups of a line; the slots that are further choices from a group follow it, where the run uses them."""


def header(job: Job, trainer: Trainer, data: str, summary: Summary) -> None:
    """What is being run: the choices, parameters, data, device and budget."""
    table = Table.grid(padding=(0, 2))
    for groups in _SHOWN:
        keys = [key for group in groups for key in (group, *(k for k, of in slots().items() if of == group))]
        chosen = "  ".join(f"{key}=[bold]{job.choices[key]}[/]" for key in keys if key in job.choices)
        table.add_row("[bold]xformer[/]" if groups is _SHOWN[0] else "", chosen)
    budget, times = job.config.data.get("tokens_per_batch"), job.config.trainer.accumulate_grad_batches
    batch = f"{budget * times:,} tokens" if budget else f"{job.config.data.batch_size * times} sequences"
    facts = {
        "model": f"{summary.parameters:,} parameters, {_si(summary.flops_per_token or 0)}FLOPs per token",
        "data": data,
        "training": f"{trainer.max_steps:,} steps of {batch}, seed {job.config.seed}",
        "device": f"{trainer.world_size} x {_device(trainer, summary)}, precision {trainer.precision}",
        "directory": str(job.directory),
    }
    for name, fact in facts.items():
        table.add_row(f"[dim]{name}[/]", escape(fact))
    Console().print(table, soft_wrap=True)


def results(job: Job, summary: Summary, epilogue: str | None) -> None:
    """The metrics with the floors beside them, what the run cost, and the command that would come next."""
    console = Console()
    if epilogue:
        console.rule("A sample of the trained model", align="left")
        console.print(epilogue, highlight=False, markup=False)
    table = Table(title="Results", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in summary.metrics.items():
        if name.startswith(("train/", "val/", "test/")):
            table.add_row(name, "nan" if value is None else f"{value:.4f}")
    floor_of = cast(type[DataModule], target(job.config.data)).floor_of
    for name, value in summary.floors.items():
        table.add_row(f"floor: {name} ({floor_of})", f"{value:.4f}", style="dim")
    console.print(table)
    facts = {
        "cost": f"{summary.wall_seconds:.0f} s, {_speed(summary)}peak memory {_si(summary.peak_memory_bytes or 0)}B",
        "directory": str(job.directory),
        "next": next_command(job),
    }
    for name, fact in facts.items():
        console.print(f"[dim]{name:<11}[/]{escape(fact)}", soft_wrap=True, highlight=False)


def next_command(job: Job) -> str:
    """The one thing to try next: another attention first, then the same question with more seeds."""
    dropped = ("attention=", "seed=", "hydra.", "cache=", "resume=", "skip_finished=")
    typed = [shlex.quote(override) for override in job.overrides if not override.startswith(dropped)]
    if job.choices["attention"] == "full" and not job.choices["architecture"].startswith("decoder"):
        return " ".join(["python train.py", *typed, "attention=linformer"])
    return " ".join(["python train.py -m", *typed, f"attention={job.choices['attention']}", "seed=0,1,2"])


def error(sentence: str) -> None:
    """An error, on the error stream."""
    Console(stderr=True).print(f"[bold red]error:[/] {escape(sentence)}", soft_wrap=True, highlight=False)


def note(sentence: str) -> None:
    """Something worth knowing."""
    Console().print(escape(sentence), soft_wrap=True, highlight=False)


def metrics(values: Mapping[str, float | None], facts: Mapping[str, str]) -> None:
    """Metrics, and what they are of."""
    console = Console()
    table = Table()
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in values.items():
        table.add_row(name, "nan" if value is None else f"{value:.4f}")
    console.print(table)
    for name, fact in facts.items():
        console.print(f"[dim]{name:<11}[/]{escape(fact)}", soft_wrap=True, highlight=False)


def aside(sentence: str) -> None:
    """Something worth knowing, on the error stream: the output is for what was asked for."""
    Console(stderr=True).print(f"[dim]{escape(sentence)}[/]", soft_wrap=True, highlight=False)


def _device(trainer: Trainer, summary: Summary) -> str:
    device = trainer.strategy.root_device
    known = str(summary.hardware.get("cpu")) if device.type == "cpu" else device.type
    return devices.name(device) or known


def _speed(summary: Summary) -> str:
    return f"{summary.tokens_per_second:,.0f} tokens/s, " if summary.tokens_per_second else ""


def _si(number: float | int) -> str:
    for unit in ("", "k", "M", "G", "T"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} P"
