"""Pairs benchmark: each of our variants against one other implementation, as in `pairs` of `conf/benchmark.yaml`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from xformer.benchmark.entries import labelled, variant_settings
from xformer.benchmark.equivalence import peer_named
from xformer.benchmark.modules import Mixing, Projected, Shape
from xformer.benchmark.peers import Peer
from xformer.benchmark.plots import plot_bars
from xformer.benchmark.progress import progress_bar
from xformer.benchmark.questions.attention import NOTES, measured, measured_turns
from xformer.benchmark.results import Results, Row
from xformer.benchmark.timing import REPEATED
from xformer.errors import ConfigError

SHOWN = {
    "variant": ("variant", ""),
    "length": ("n", "d"),
    "form": ("form", ""),
    "against": ("against", ""),
    "training_ms": ("ms", ",.1f"),
    "training_speed": ("speed", ".2f"),
    "goal": ("goal", "g"),
    "memory_ratio": ("memory", ".3f"),
    "memory_share": ("of the least", ".2f"),
    "memory_goal": ("goal", "g"),
    "noise": ("against itself", ".2f"),
}


@dataclass(frozen=True)
class _Pair:
    name: str
    settings: Mapping[str, Any]
    peer: Peer
    shape: Shape
    goals: Mapping[str, float | None]

    def __str__(self) -> str:
        return f"{self.name} against {self.peer.name} at {self.shape.length}, {self.shape.form}"

    def row(self, config: DictConfig, on_progress: Callable[[], object]) -> Iterator[Row]:
        """The table row of a pair; None if one side does not fit into the device's memory."""
        settings = {
            **self.peer.ours,
            **self.settings,
        }  # what makes ours compute the same, such as how a projection is shared
        ours = Projected(settings, self.shape) if self.peer.projects else Mixing(settings, self.shape)
        subjects = {self.peer.name: self.peer.make(self.shape), self.name: ours}
        found, too_large = measured(subjects, self.peer.projects, config, self.shape, on_progress)
        if not too_large:
            rows = {row["variant"]: row for row in found}
            repeated = rows[f"{REPEATED}: {self.peer.name}"]
            theirs = {"against_ms": repeated["training_ms"], "noise": repeated["training_speed"]}
            yield {**rows[self.name], **theirs, **self.goals}


def measure(config: DictConfig, *, peers: bool) -> Results:
    """Measure each pair whose other side is installed and whose sides fit into the device's memory.

    Args:
        config: `conf/benchmark.yaml`.
        peers: unused: every row has one.

    Raises:
        ConfigError: no pair can be measured here.
    """
    torch.set_flush_denormal(True)
    pairs = [
        _Pair(name, variant_settings(entry), peer_named(entry["against"]), _shape(config, entry), _goals(entry))
        for name, entry in labelled(config, "pairs")
    ]
    there = [pair for pair in pairs if pair.peer.supports(pair.shape)]
    rows: list[Row] = []
    too_large: list[_Pair] = []
    left = list(there)
    with (
        progress_bar(len(there) * measured_turns(2, config)) as on_progress,
        suppress(KeyboardInterrupt),
    ):  # keep the rows measured so far
        while left:
            on_progress(str(left[0]))
            row = list(left[0].row(config, on_progress))
            rows += row
            too_large += [] if row else [left[0]]
            left.pop(0)
    missing = _missing("it is not installed or lacks this form", [pair for pair in pairs if pair not in there])
    missing += _missing("a side does not fit into the device's memory", too_large)
    missing += _missing("it was stopped before", left)
    if not rows:
        raise ConfigError(f"pairs has nothing that can be measured here. {' '.join(missing)}")
    noise = "against itself: the speed of the other side against itself; what differs from 1 is noise."
    least = "of the least: bytes held, inputs included, over those of inputs, output and gradients alone."
    notes = [*NOTES[:2], least, noise, *missed_goals(rows), *missing]
    return Results("pairs", rows, SHOWN, plot=plot, notes=notes, absent="-")


def missed_goals(rows: Sequence[Row]) -> list[str]:
    """A sentence that names the goals that were not reached; empty if there are none."""
    set_goals = [(row, key) for row in rows for key in ("goal", "memory_goal") if row.get(key) is not None]
    short = [
        f"{row['variant']} {row['length']} {row['form']} ({'speed' if key == 'goal' else 'memory'})"
        for row, key in set_goals
        if (row["training_speed"] < row[key] if key == "goal" else row["memory_share"] > row[key])
    ]
    if not set_goals:
        return []
    return [f"Goals: {len(set_goals) - len(short)} of {len(set_goals)} reached. Missed: {'; '.join(short) or 'none'}."]


def _missing(why: str, pairs: Sequence[_Pair]) -> list[str]:
    return [f"Not measured, as {why}: {'; '.join(map(str, pairs))}."] if pairs else []


def _goals(entry: Mapping[str, Any]) -> dict[str, float | None]:
    return {key: entry.get(key) for key in ("goal", "memory_goal")}


def _shape(config: DictConfig, entry: Mapping[str, Any]) -> Shape:
    return Shape(config.batch, config.heads, config.head_dim, entry["length"], entry.get("causal", False))


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plot the speed of each pair, with a line at equal speed."""
    named = [
        {**row, "name": f"{row['variant']} {row['length']} {row['form']}\nagainst {row['against']}"} for row in rows
    ]
    plot_bars(named, path, name="name", value="training_speed", label="times as fast, forward + backward", line=1.0)
