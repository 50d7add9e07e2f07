"""Attention alone: time and memory by variant and length, against torch's fused attention and against peers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from xformer.attention.base import Attention
from xformer.benchmark.against import TORCH
from xformer.benchmark.entries import label, labelled, own
from xformer.benchmark.live_bytes import extra_bytes
from xformer.benchmark.peers import PEERS, Peer
from xformer.benchmark.plots import by_length
from xformer.benchmark.progress import measuring
from xformer.benchmark.results import Results, Row
from xformer.benchmark.subjects import Fused, Mixing, Projected, Shape, step
from xformer.benchmark.timing import AGAIN, Times, interleaved, turns
from xformer.config.groups import written
from xformer.config.validate import target
from xformer.core import devices
from xformer.core.capability import Capability
from xformer.errors import RunError

SHOWN = {
    "variant": ("variant", ""),
    "forward_ms": ("forward ms", ".1f"),
    "forward_speed": ("speed", ".2f"),
    "training_ms": ("training ms", ".1f"),
    "training_speed": ("speed", ".2f"),
    "memory_ratio": ("memory", ".2f"),
}
SPLIT = ("length", "form", "against")
NOTES = (
    "training: forward and backward. speed: how many times as fast as `against`; the median of the rounds' ratios.",
    "memory: the most bytes alive beyond inputs and weights, gradients included, in forward and backward.",
    f"{AGAIN}: the baseline once more; what its speed differs from 1 is noise.",
)


def measure(config: DictConfig, *, peers: bool) -> Results:
    """Every variant at every length, bidirectional and causal.

    Args:
        config: `conf/benchmark.yaml`.
        peers: whether to measure the installed peers too, each against our variant.

    Raises:
        RunError: not even torch's fused attention fits into the device's memory.
    """
    # Numbers too small to be normal take the processor a hundred times as long, and decide nothing.
    torch.set_flush_denormal(True)
    rows: list[Row] = []
    missing: list[str] = []
    against = {shape: [peer for peer in PEERS if peers and peer.takes(shape)] for shape in _shapes(config)}
    total = sum(
        measured_turns(1 + len(_possible(config, shape)), config) + len(others) * measured_turns(2, config)
        for shape, others in against.items()
    )
    with measuring(total) as told:
        for shape, others in against.items():
            told(f"length {shape.length}, {shape.form}")
            measurements = [_variants(config, shape, told), *(_against(peer, config, shape, told) for peer in others)]
            for found, too_large in measurements:
                rows += found
                missing += [f"{name} at {shape.length}, {shape.form}" for name in too_large]
    notes = [*crossovers(rows), *NOTES]
    if missing:
        notes.append(f"Not measured, as it does not fit into the device's memory: {'; '.join(missing)}.")
    if not any(row["against"] == TORCH for row in rows):
        raise RunError(f"lengths={list(config.lengths)} is too long: {notes[-1]}")
    return Results("attention", rows, SHOWN, SPLIT, plot, notes)


def _variants(config: DictConfig, shape: Shape, told: Callable[[], object]) -> tuple[list[Row], list[str]]:
    ours = {name: Mixing(variant, shape) for name, variant in _possible(config, shape).items()}
    return measured({TORCH: Fused(shape), **ours}, False, config, shape, told)


def _against(peer: Peer, config: DictConfig, shape: Shape, told: Callable[[], object]) -> tuple[list[Row], list[str]]:
    ours = Projected(peer.ours, shape) if peer.projects else Mixing(peer.ours, shape)
    return measured({peer.name: peer.make(shape), label(peer.ours): ours}, peer.projects, config, shape, told)


def measured(
    subjects: Mapping[str, nn.Module],
    projects: bool,
    config: DictConfig,
    shape: Shape,
    told: Callable[[], object],
) -> tuple[list[Row], list[str]]:
    """A row for each of several modules on the same tensors, and one for the first again.

    Args:
        subjects: by name; the first is what the others are compared with.
        projects: whether they take tokens, or queries, keys and values.
        config: `conf/benchmark.yaml`.
        shape: of the tensors.
        told: called after each turn.

    Returns:
        the rows, and the names of what does not fit into a CUDA device's memory: where that is the first, there is
        nothing to compare with and no row.
    """
    inputs = _tensors(config, shape, projects=projects)
    first, *_ = subjects
    too_large = [
        name for name, module in subjects.items() if not _fits(module.to(inputs[0].device, inputs[0].dtype), inputs)
    ]
    if first in too_large:
        return [], too_large
    subjects = {name: module for name, module in subjects.items() if name not in too_large}
    forward, training = (
        interleaved(
            {name: step(module, inputs, training=training) for name, module in subjects.items()},
            rounds=config.rounds,
            least=config.seconds,
            told=told,
        )
        for training in (False, True)
    )
    memory = {name: extra_bytes(step(module, inputs, training=True)) for name, module in subjects.items()}
    shares = {name: memory_share(memory[name], module, inputs) for name, module in subjects.items()}
    return [_row(name, shape, forward, training, memory, shares) for name in (*subjects, AGAIN)], too_large


def memory_share(extra: int, module: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Bytes of a step, as a share of those of the inputs, the output, and the gradients of inputs and weights alone.

    Args:
        extra: bytes beyond inputs and weights.
        module: whose output is as large as the first input.
        inputs: of the module.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    given, output, weights = (
        sum(tensor.numel() * tensor.element_size() for tensor in tensors) for tensors in (inputs, inputs[:1], trained)
    )
    return (given + extra) / (given + output + given + weights)


def measured_turns(subjects: int, config: DictConfig) -> int:
    """How often `measured` calls `told`: forward alone and training take turns by themselves."""
    return 2 * turns(subjects, rounds=config.rounds)


def _fits(module: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether a CUDA device has the memory for it; a process that runs out of a machine's memory cannot tell."""
    if inputs[0].device.type != "cuda":
        return True
    try:
        for training in (False, True):  # what is compiled is so here, before the clock runs
            step(module, inputs, training=training)()
    except torch.OutOfMemoryError:
        devices.empty_cache()
        return False
    return True


def _row(
    name: str, shape: Shape, forward: Times, training: Times, memory: dict[str, int], shares: dict[str, float]
) -> Row:
    key = training.baseline if name == AGAIN else name
    own, base = memory[key], memory[training.baseline]
    return {
        "length": shape.length,
        "form": shape.form,
        "variant": f"{AGAIN}: {training.baseline}" if name == AGAIN else name,
        "against": training.baseline,
        "forward_ms": 1000 * forward.median(name),
        "forward_speed": forward.speed(name),
        "training_ms": 1000 * training.median(name),
        "training_speed": training.speed(name),
        "memory_bytes": own,
        "memory_ratio": own / base,
        "memory_share": shares[key],
    }


def crossovers(rows: Sequence[Row]) -> list[str]:
    """For each form, from which length on each variant trains faster than torch's fused attention.

    Faster is what exceeds the noise: a speed further from 1 than that of the control at this length, either way.
    """
    sentences = []
    control = f"{AGAIN}: {TORCH}"
    for form in dict.fromkeys(row["form"] for row in rows):
        speeds: dict[str, dict[int, float]] = {}
        for row in rows:
            if (row["form"], row["against"]) == (form, TORCH) and row["variant"] != TORCH:
                speeds.setdefault(row["variant"], {})[row["length"]] = row["training_speed"]
        noise = {length: max(speed, 1 / speed) for length, speed in speeds.pop(control, {}).items()}
        found = ", ".join(f"{variant} {_faster_from(by_length, noise)}" for variant, by_length in speeds.items())
        if found:
            sentences.append(f"{form}, trains faster than {TORCH}, by more than the noise, from length: {found}.")
    return sentences


def _faster_from(speeds: Mapping[int, float], noise: Mapping[int, float]) -> str:
    """The shortest length from which on every one measured is faster."""
    slower = max((length for length, speed in speeds.items() if speed <= noise[length]), default=0)
    return str(min((length for length in speeds if length > slower), default=f"none to {max(speeds)}"))


def plot(rows: Sequence[Row], path: Path) -> None:
    """Time of forward and backward by length, a panel for each form."""
    by_length(
        [row for row in rows if row["against"] == TORCH and AGAIN not in row["variant"]],
        path,
        x="length",
        y="training_ms",
        panel="form",
        names={"bidirectional": "bidirectional", "causal": "causal"},
        label="forward + backward (ms)",
    )


def _shapes(config: DictConfig) -> Iterable[Shape]:
    for length in config.lengths:
        for causal in config.causal:
            yield Shape(config.batch, config.heads, config.head_dim, length, causal)


def _possible(config: DictConfig, shape: Shape) -> dict[str, Mapping[str, Any]]:
    return {name: own(entry) for name, entry in labelled(config, "variants") if _can(entry, shape)}


def _can(entry: Mapping[str, Any], shape: Shape) -> bool:
    found = target(written("attention", entry["attention"]))
    assert isinstance(found, type)
    assert issubclass(found, Attention)
    able = (Capability.CAUSAL if shape.causal else Capability.BIDIRECTIONAL) in found.provides
    return able and shape.length <= entry.get("longest", shape.length)


def _tensors(config: DictConfig, shape: Shape, *, projects: bool) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    size = (
        (shape.batch, shape.length, shape.d_model)
        if projects
        else (shape.batch, shape.heads, shape.length, shape.head_dim)
    )
    device, dtype = devices.default_device(), getattr(torch, config.dtype)
    return tuple(
        torch.randn(size, generator=generator).to(device, dtype).requires_grad_() for _ in range(1 if projects else 3)
    )
