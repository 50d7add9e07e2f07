"""Whole models: tokens a second, memory, the share of the machine's matrix products that they reach, and energy."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig

from xformer.benchmark.energy import Meter
from xformer.benchmark.entries import labelled
from xformer.benchmark.plots import bars
from xformer.benchmark.progress import measuring
from xformer.benchmark.results import Results, Row
from xformer.benchmark.timing import AGAIN, interleaved, turns
from xformer.benchmark.whole import Loss, Place, TrainingStep, build, composed, variant_overrides
from xformer.benchmark.whole_peers import Decoder, installed
from xformer.config.validate import make
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
    """Training steps of `models`, and with peers those of `model` against other people's.

    Args:
        config: `conf/benchmark.yaml`.
        peers: whether to measure decoders of other libraries, as far as they are installed.

    Raises:
        ConfigError: there is nothing to measure, or `others` names what is not there.
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
    with measuring(sum(turns(len(steps) + 1, rounds=config.rounds) for steps in tables)) as told:
        for steps in tables:
            rows += _rows(steps, config, meter, told)
    peak = max(row["peak_gflops"] for row in rows)
    notes += [
        "speed: tokens a second, against the first of each table; the median of the rounds' ratios.",
        "memory: the most bytes of weights, optimiser state, gradients and activations alive at once.",
        "of the peak: FLOPs a second of matrix products and attention, against those of one large product in "
        f"{config.dtype} timed in the same rounds; at best it reached {peak:,.0f} GFLOP/s.",
        f"{AGAIN}: the first once more; what its speed differs from 1 is noise.",
        meter.source,
    ]
    return Results("training", rows, SHOWN, ("against",), plot, notes, absent=meter.absent)


def _models(config: DictConfig) -> Iterator[tuple[str, TrainingStep]]:
    for name, entry in labelled(config, "models"):
        length = entry["length"]
        place = Place(config.vocabulary, length, max(1, config.tokens // length), getattr(torch, config.dtype))
        task, plan = build(composed([*config.whole, *variant_overrides(entry)]), place)
        loss = lambda batch, task=task: task.step(task.prepare(batch)).loss  # noqa: E731
        yield f"{name} {length}", TrainingStep(task, loss, plan.optimizer(task, True), place)


def _decoders(config: DictConfig) -> Iterator[tuple[str, TrainingStep]]:
    """Ours and theirs, all trained by our optimiser's factory."""
    node = composed(list(config.model))
    place = Place(config.characters, node.data.block, node.data.loader.batch_size, getattr(torch, config.dtype))
    task, plan = build(node, place)
    own: Loss = lambda batch: task.step(task.prepare(batch)).loss  # noqa: E731
    yield OURS, TrainingStep(task, own, plan.optimizer(task, True), place, compiled=config.compiled)
    for name, model in installed(Decoder(make(node.size), place), config.nanogpt, config.others):
        model.to(place.device)
        loss = lambda batch, model=model: model(*batch)  # noqa: E731
        yield name, TrainingStep(model, loss, plan.optimizer(model, True), place, compiled=config.compiled)


def _rows(
    steps: Mapping[str, TrainingStep], config: DictConfig, meter: Meter, told: Callable[..., None]
) -> Iterator[Row]:
    costs: dict[str, tuple[float, int]] = {}
    for name, step in steps.items():
        told(name)
        costs[name] = step.measure()
    product, work = _matrix_product(getattr(torch, config.dtype))
    told("taking turns")
    times = interleaved(
        {**steps, MATMUL: product},
        rounds=config.rounds,
        least=meter.least(config.seconds),
        around=meter.measure,
        told=told,
    )
    first = times.baseline
    for name in (*steps, AGAIN):
        own = first if name == AGAIN else name
        step, (flops, memory), watts = steps[own], costs[own], meter.watts(name)
        place, base = step.place, steps[first].place
        tokens = place.batch * place.length
        rate = tokens / times.median(name)
        yield {
            "against": first,
            "variant": f"{AGAIN}: {own}" if name == AGAIN else name,
            "parameters": step.parameters,
            "parameters_m": step.parameters / 1e6,
            "length": place.length,
            "batch": place.batch,
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
    """Tokens a second of each model, a panel for each table."""
    shown = [row for row in rows if AGAIN not in row["variant"]]
    bars(shown, path, name="variant", value="tokens_per_second", panel="against", label="tokens/s")
