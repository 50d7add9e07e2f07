"""Training benchmark of whole models: tokens per second, memory, share of peak matrix-product speed, and energy."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig

from xformer.benchmark.energy import Meter
from xformer.benchmark.entries import labelled
from xformer.benchmark.models import (
    Loss,
    TrainingStep,
    Workload,
    build_benchmark_model,
    composed_config,
    variant_overrides,
)
from xformer.benchmark.peer_models import DecoderShape, installed
from xformer.benchmark.plots import plot_bars
from xformer.benchmark.progress import progress_bar
from xformer.benchmark.results import Results, Row
from xformer.benchmark.timing import REPEATED, interleaved, number_of_turns
from xformer.config.validate import instantiate_node
from xformer.core import devices
from xformer.errors import ConfigError

OURS, MATMUL = "xformer", "matrix product"
SHOWN = {
    "variant": ("model", ""),
    "parameters_m": ("M parameters", ",.1f"),
    "length": ("length", "d"),
    "tokens_per_second": ("tokens/s", ",.0f"),
    "speed": ("speed", ".2f"),
    "step_ms": ("step ms", ",.1f"),
    "memory_gb": ("memory GB", ".2f"),
    "utilisation": ("of the peak", ".0%"),
    "watts": ("watts", ".0f"),
    "joules_per_token": ("J/token", ".3g"),
}


def measure(config: DictConfig, *, peers: bool) -> Results:
    """Measure training steps of `models` and, with peers, of `model` against other libraries.

    Args:
        config: `conf/benchmark.yaml`.
        peers: whether to measure decoders of other libraries, as far as they are installed.

    Raises:
        ConfigError: there is nothing to measure, or `others` names a peer that is not installed.
    """
    torch.set_flush_denormal(True)
    meter, notes = Meter.of_this_machine(), [f"Models: {' '.join(config.whole)}."]
    tables = [dict(_models(config))] if config.models else []
    if peers:
        compiled = "compiled, " if config.compiled else ""
        notes.append(
            f"{OURS}: {' '.join(config.model)}; {compiled}all with the same tokens, loss, optimiser and clipping."
        )
        tables.append(dict(_decoders(config)))
    if not tables:
        raise ConfigError(
            "models=[] leaves nothing to measure; name one, such as {attention: full, length: 512}, or --peers."
        )
    rows: list[Row] = []
    with progress_bar(sum(number_of_turns(len(steps) + 1, rounds=config.rounds) for steps in tables)) as on_progress:
        for steps in tables:
            rows += _rows(steps, config, meter, on_progress)
    peak = max(row["peak_gflops"] for row in rows)
    notes += [
        "speed: tokens a second, against the first of each table; the median of the rounds' ratios.",
        "memory: the most bytes of weights, optimiser state, gradients and activations alive at once.",
        "of the peak: FLOPs a second of matrix products and attention, against those of one large product in "
        f"{config.dtype} timed in the same rounds; at best it reached {peak:,.0f} GFLOP/s.",
        f"{REPEATED}: the first once more; what its speed differs from 1 is noise.",
        meter.source,
    ]
    return Results("training", rows, SHOWN, ("against",), plot, notes, absent=meter.absent)


def _models(config: DictConfig) -> Iterator[tuple[str, TrainingStep]]:
    for name, entry in labelled(config, "models"):
        length = entry["length"]
        workload = Workload(config.vocabulary, length, max(1, config.tokens // length), getattr(torch, config.dtype))
        task, plan = build_benchmark_model(composed_config([*config.whole, *variant_overrides(entry)]), workload)
        loss = lambda batch, task=task: task.step(task.prepare(batch)).loss  # noqa: E731
        yield f"{name} {length}", TrainingStep(task, loss, plan.optimizer(task, True), workload)


def _decoders(config: DictConfig) -> Iterator[tuple[str, TrainingStep]]:
    """Our decoder and the peers, all trained with the same optimiser."""
    node = composed_config(list(config.model))
    workload = Workload(config.characters, node.data.block, node.data.loader.batch_size, getattr(torch, config.dtype))
    task, plan = build_benchmark_model(node, workload)
    measured: Loss = lambda batch: task.step(task.prepare(batch)).loss  # noqa: E731
    yield OURS, TrainingStep(task, measured, plan.optimizer(task, True), workload, compiled=config.compiled)
    for name, model in installed(DecoderShape(instantiate_node(node.size), workload), config.nanogpt, config.others):
        model.to(workload.device)
        loss = lambda batch, model=model: model(*batch)  # noqa: E731
        yield name, TrainingStep(model, loss, plan.optimizer(model, True), workload, compiled=config.compiled)


def _rows(
    steps: Mapping[str, TrainingStep], config: DictConfig, meter: Meter, on_progress: Callable[..., None]
) -> Iterator[Row]:
    costs: dict[str, tuple[float, int]] = {}
    for name, step in steps.items():
        on_progress(name)
        costs[name] = step.measure()
    product, work = _matrix_product(getattr(torch, config.dtype))
    on_progress("taking turns")
    times = interleaved(
        {**steps, MATMUL: product},
        rounds=config.rounds,
        least=meter.least(config.seconds),
        around=meter.measure,
        on_progress=on_progress,
    )
    first = times.baseline
    for name in (*steps, REPEATED):
        measured = first if name == REPEATED else name
        step, (flops, memory), watts = steps[measured], costs[measured], meter.watts(name)
        workload, base = step.workload, steps[first].workload
        tokens = workload.batch * workload.length
        rate = tokens / times.median(name)
        yield {
            "against": first,
            "variant": f"{REPEATED}: {measured}" if name == REPEATED else name,
            "parameters": step.parameters,
            "parameters_m": step.parameters / 1e6,
            "length": workload.length,
            "batch": workload.batch,
            "step_ms": 1000 * times.median(name),
            "tokens_per_second": rate,
            "speed": times.speed(name) * tokens / (base.batch * base.length),
            "memory_gb": memory / 1e9,
            "flops": flops,
            "peak_gflops": work / min(times.seconds[MATMUL]) / 1e9,
            "utilisation": times.speed(name, against=MATMUL) * flops / work,
            "watts": watts,
            "joules_per_token": None if watts is None else watts / rate,
        }


def _matrix_product(dtype: torch.dtype) -> tuple[Callable[[], object], float]:
    """A product large enough to run at the machine's speed, and its FLOPs."""
    device = devices.default_device()
    n = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return lambda: left @ right, 2.0 * n**3


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plot the tokens per second of each model, with a panel for each table."""
    shown = [row for row in rows if REPEATED not in row["variant"]]
    plot_bars(shown, path, name="variant", value="tokens_per_second", panel="against", label="tokens/s")
