"""Our variants, each against one other implementation, in one table: `pairs` of `conf/benchmark.yaml`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from xformer.benchmark.peers import PEERS, Peer
from xformer.benchmark.plots import bars
from xformer.benchmark.progress import measuring
from xformer.benchmark.questions.attention import NOTES, TORCH, label, measured
from xformer.benchmark.results import Results, Row
from xformer.benchmark.settings import entries
from xformer.benchmark.subjects import Fused, Mixing, Projected, Shape
from xformer.benchmark.timing import AGAIN
from xformer.configuration import nearest
from xformer.errors import ConfigError

FUSED = Peer(TORCH, "torch", {}, Fused)
_ABOUT = {"length", "causal", "against"}
SHOWN = {
    "variant": ("variant", ""),
    "length": ("n", "d"),
    "form": ("form", ""),
    "against": ("against", ""),
    "training_ms": ("ms", ",.1f"),
    "training_speed": ("speed", ".2f"),
    "memory_ratio": ("memory", ".3f"),
    "noise": ("against itself", ".2f"),
}


def measure(config: DictConfig, *, peers: bool) -> Results:
    """One row for each pair whose other side is installed.

    Args:
        config: `conf/benchmark.yaml`.
        peers: unused: every row has one.
    """
    torch.set_flush_denormal(True)
    rows: list[Row] = []
    missing: list[str] = []
    with measuring() as told:
        for settings in entries(config, "pairs", "attention", "length", "against"):
            peer, shape = _other(str(settings["against"])), _shape(config, settings)
            told(f"{label(settings)}, length {shape.length}, {shape.form}")
            if peer.takes(shape):
                rows += _row(settings, peer, config, shape, told)
            else:
                missing.append(f"{peer.name} at {shape.length}, {shape.form}")
    notes = [*NOTES[:2], "against itself: the speed of the other side against itself; what differs from 1 is noise."]
    if missing:
        notes.append(f"Not measured, as it is not installed or lacks this form: {'; '.join(missing)}.")
    return Results("pairs", rows, SHOWN, plot=plot, notes=notes)


def _row(settings: Mapping[str, Any], peer: Peer, config: DictConfig, shape: Shape, told: Any) -> Iterator[Row]:
    own = {key: value for key, value in settings.items() if key not in _ABOUT}
    if peer.projects:
        own = {**peer.ours, **own}  # what makes ours compute the same, such as how a projection is shared
    ours = Projected(own, shape) if peer.projects else Mixing(own, shape)
    rows = {
        row["variant"]: row
        for row in measured({peer.name: peer.make(shape), label(own): ours}, peer.projects, config, shape, told)
    }
    again = rows[f"{AGAIN}: {peer.name}"]
    yield {**rows[label(own)], "against_ms": again["training_ms"], "noise": again["training_speed"]}


def _other(name: str) -> Peer:
    known = {peer.name: peer for peer in (FUSED, *PEERS)}
    if name not in known:
        raise ConfigError(f"pairs has against: {name}, which is not known; {nearest(name, known)}")
    return known[name]


def _shape(config: DictConfig, settings: Mapping[str, Any]) -> Shape:
    causal = bool(settings.get("causal", False))
    return Shape(config.batch, config.heads, config.head_dim, int(settings["length"]), causal)


def plot(rows: Sequence[Row], path: Path) -> None:
    """The speed of each pair, with a line where both are as fast."""
    named = [
        {**row, "name": f"{row['variant']} {row['length']} {row['form']}\nagainst {row['against']}"} for row in rows
    ]
    bars(named, path, name="name", value="training_speed", label="times as fast, forward + backward", line=1.0)
