"""Attention alone: time and memory by variant and length, against torch's fused attention and against peers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from xformer.benchmark.entries import label, labelled, owns_projections, variant_settings
from xformer.benchmark.equivalence import TORCH
from xformer.benchmark.live_bytes import extra_bytes
from xformer.benchmark.modules import Fused, Mixing, Projected, Shape, training_or_forward_step
from xformer.benchmark.peers import PEERS, Peer
from xformer.benchmark.plots import plot_by_length
from xformer.benchmark.progress import progress_bar
from xformer.benchmark.results import Results, Row
from xformer.benchmark.timing import REPEATED, Times, interleaved, number_of_turns
from xformer.config.groups import load_option
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
LAYER = "full, whole layer"
SPLIT = ("length", "form", "against")
NOTES = (
    "training: forward and backward. speed: how many times as fast as `against`; the median of the rounds' ratios.",
    "memory: the most bytes alive beyond inputs and weights, gradients included, in forward and backward.",
    f"{REPEATED}: the baseline once more; what its speed differs from 1 is noise.",
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
    against = {shape: [peer for peer in PEERS if peers and peer.supports(shape)] for shape in _shapes(config)}
    total = sum(_turns(config, shape) + len(others) * measured_turns(2, config) for shape, others in against.items())
    with progress_bar(total) as on_progress:
        for shape, others in against.items():
            on_progress(f"length {shape.length}, {shape.form}")
            measurements = [
                _variants(config, shape, on_progress),
                *([_layers(config, shape, on_progress)] if _possible(config, shape, layers=True) else []),
                *(_against(peer, config, shape, on_progress) for peer in others),
            ]
            for found, too_large in measurements:
                rows += found
                missing += [f"{name} at {shape.length}, {shape.form}" for name in too_large]
    notes = [*crossovers(rows), *NOTES, *_about_layers(rows)]
    if missing:
        notes.append(f"Not measured, as it does not fit into the device's memory: {'; '.join(missing)}.")
    if not any(row["against"] == TORCH for row in rows):
        raise RunError(f"lengths={list(config.lengths)} is too long: {notes[-1]}")
    return Results("attention", rows, SHOWN, SPLIT, plot, notes)


def _turns(config: DictConfig, shape: Shape) -> int:
    layers = len(_possible(config, shape, layers=True))
    alone = measured_turns(1 + len(_possible(config, shape, layers=False)), config)
    return alone + (measured_turns(1 + layers, config) if layers else 0)


def _variants(config: DictConfig, shape: Shape, on_progress: Callable[[], object]) -> tuple[list[Row], list[str]]:
    ours = {name: Mixing(variant, shape) for name, variant in _possible(config, shape, layers=False).items()}
    return measured({TORCH: Fused(shape), **ours}, False, config, shape, on_progress)


def _layers(config: DictConfig, shape: Shape, on_progress: Callable[[], object]) -> tuple[list[Row], list[str]]:
    """Token mixers as whole layers, against full attention with its projections."""
    ours = {name: Projected(variant, shape) for name, variant in _possible(config, shape, layers=True).items()}
    return measured({LAYER: Projected({"attention": "full"}, shape), **ours}, True, config, shape, on_progress)


def _about_layers(rows: Sequence[Row]) -> list[str]:
    names = dict.fromkeys(row["variant"] for row in rows if row["against"] == LAYER)
    mixers = [name for name in names if name != LAYER and not name.startswith(REPEATED)]
    if not mixers:
        return []
    return [
        f"{', '.join(mixers)}: they own their projections and take no queries, keys and values, so they are measured "
        f"from tokens to tokens, against {LAYER}."
    ]


def _against(
    peer: Peer, config: DictConfig, shape: Shape, on_progress: Callable[[], object]
) -> tuple[list[Row], list[str]]:
    ours = Projected(peer.ours, shape) if peer.projects else Mixing(peer.ours, shape)
    return measured({peer.name: peer.make(shape), label(peer.ours): ours}, peer.projects, config, shape, on_progress)


def measured(
    subjects: Mapping[str, nn.Module],
    projects: bool,
    config: DictConfig,
    shape: Shape,
    on_progress: Callable[[], object],
) -> tuple[list[Row], list[str]]:
    """A row for each of several modules on the same tensors, and one for the first again.

    Args:
        subjects: by name; the first is what the others are compared with.
        projects: whether they take tokens instead of queries, keys and values.
        config: `conf/benchmark.yaml`.
        shape: the sizes of the tensors.
        on_progress: called after each turn.

    Returns:
        the rows, and the names of modules that do not fit into a CUDA device's memory; without the first there is no
        reference, and there are no rows.
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
            {name: training_or_forward_step(module, inputs, training=training) for name, module in subjects.items()},
            rounds=config.rounds,
            least=config.seconds,
            on_progress=on_progress,
        )
        for training in (False, True)
    )
    memory = {
        name: extra_bytes(training_or_forward_step(module, inputs, training=True)) for name, module in subjects.items()
    }
    shares = {name: memory_share(memory[name], module, inputs) for name, module in subjects.items()}
    return [_row(name, shape, forward, training, memory, shares) for name in (*subjects, REPEATED)], too_large


def memory_share(extra: int, module: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Bytes of a step, as a share of those of the inputs, the output, and the gradients of inputs and weights alone.

    Args:
        extra: bytes besides inputs and weights.
        module: a module whose output has the size of the first input.
        inputs: the inputs of the module.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    input_bytes, output, weights = (
        sum(tensor.numel() * tensor.element_size() for tensor in tensors) for tensors in (inputs, inputs[:1], trained)
    )
    return (input_bytes + extra) / (input_bytes + output + input_bytes + weights)


def measured_turns(subjects: int, config: DictConfig) -> int:
    """How often `measured` calls `on_progress`: forward alone and training take turns by themselves."""
    return 2 * number_of_turns(subjects, rounds=config.rounds)


def _fits(module: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether a CUDA device has the memory for it; a process that runs out of a machine's memory cannot tell."""
    if inputs[0].device.type != "cuda":
        return True
    try:
        for training in (False, True):  # what is compiled is so here, before the clock runs
            training_or_forward_step(module, inputs, training=training)()
    except torch.OutOfMemoryError:
        devices.empty_cache()
        return False
    return True


def _row(
    name: str, shape: Shape, forward: Times, training: Times, memory: dict[str, int], shares: dict[str, float]
) -> Row:
    key = training.baseline if name == REPEATED else name
    allocated, base = memory[key], memory[training.baseline]
    return {
        "length": shape.length,
        "form": shape.form,
        "variant": f"{REPEATED}: {training.baseline}" if name == REPEATED else name,
        "against": training.baseline,
        "forward_ms": 1000 * forward.median(name),
        "forward_speed": forward.speed(name),
        "training_ms": 1000 * training.median(name),
        "training_speed": training.speed(name),
        "memory_bytes": allocated,
        "memory_ratio": allocated / base,
        "memory_share": shares[key],
    }


def crossovers(rows: Sequence[Row]) -> list[str]:
    """For each form, from which length on each variant trains faster than torch's fused attention.

    A variant is faster if its speed exceeds the noise: the deviation of the control from 1 at this length.
    """
    sentences = []
    control = f"{REPEATED}: {TORCH}"
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
    """Time of forward and backward by length, a panel for each form, and for whole layers of each."""
    forms = ("bidirectional", "causal")
    names = {(against, form): form + of for against, of in ((TORCH, ""), (LAYER, ", whole layers")) for form in forms}
    kept = [row for row in rows if row["against"] in (TORCH, LAYER) and REPEATED not in row["variant"]]
    plot_by_length(
        [{**row, "panel": (row["against"], row["form"])} for row in kept],
        path,
        x="length",
        y="training_ms",
        panel="panel",
        names=names,
        label="forward + backward (ms)",
    )


def _shapes(config: DictConfig) -> Iterable[Shape]:
    for length in config.lengths:
        for causal in config.causal:
            yield Shape(config.batch, config.heads, config.head_dim, length, causal)


def _possible(config: DictConfig, shape: Shape, *, layers: bool) -> dict[str, Mapping[str, Any]]:
    """The variants that a shape suits: token mixers, which are whole layers, or attentions."""
    return {
        name: variant_settings(entry)
        for name, entry in labelled(config, "variants")
        if owns_projections(entry) == layers and _can(entry, shape)
    }


def _can(entry: Mapping[str, Any], shape: Shape) -> bool:
    found: Any = target(load_option("attention", entry["attention"]))
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
