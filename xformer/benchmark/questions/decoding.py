"""Decoding benchmark: milliseconds per new token and bytes of state, by the length of the context.

A context is read once, and its state is kept. Every turn copies that state, untimed, and decodes from it.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from xformer.architecture.stack import Stack
from xformer.benchmark.entries import labelled
from xformer.benchmark.models import Workload, build_benchmark_model, composed_config, variant_overrides
from xformer.benchmark.peer_models import DecoderShape, gpt2
from xformer.benchmark.plots import plot_by_length
from xformer.benchmark.progress import progress_bar
from xformer.benchmark.results import Results, Row
from xformer.benchmark.timing import REPEATED, interleaved, number_of_turns
from xformer.config.validate import instantiate_node
from xformer.errors import ConfigError, IncompatibleError
from xformer.generation.causal_prefixes import CausalPrefixes
from xformer.generation.generate import generate_tokens
from xformer.generation.sampling import most_likely
from xformer.tasks.token_prediction import TokenPrediction

PEER = "GPT-2 (transformers)"
SHOWN = {
    "variant": ("variant", ""),
    "ms_per_token": ("ms per token", ".2f"),
    "speed": ("speed", ".2f"),
    "speed_against_peer": (f"against {PEER}", ".2f"),
    "goal": ("goal", "g"),
    "state_mb": ("state MB", ".2f"),
}


class DecodingModel(ABC):
    """A model that has read its context."""

    @abstractmethod
    def rewind(self) -> None:
        """Reset to the end of the context."""

    @abstractmethod
    def write(self) -> object:
        """Generate the new tokens greedily."""

    @property
    @abstractmethod
    def bytes(self) -> int:
        """The bytes of the state after the context."""


class XformerDecoder(DecodingModel):
    """A decoder of xformer with its decoding state.

    Args:
        task: the task with the model.
        workload: the workload of the context, one token after it, and the new tokens.
        new: the number of new tokens.
    """

    def __init__(self, task: TokenPrediction, workload: Workload, new: int) -> None:
        stack = task.model
        assert isinstance(stack, Stack)
        self.read = CausalPrefixes(stack, task.logits, workload.tokens(workload.length - new - 1), None, new + 1)
        with torch.no_grad():
            self.read.append(most_likely(self.read.logits()))
        self.read.max_new = new
        self.rewind()

    def rewind(self) -> None:
        """Copy the state, but not the weights."""
        kept = {id(part): part for part in (self.read.stack, self.read.head)}
        self.ahead = copy.deepcopy(self.read, kept)

    def write(self) -> object:
        """Generate the new tokens greedily."""
        return generate_tokens(self.ahead, most_likely, end=None)

    @property
    def bytes(self) -> int:
        """The bytes of all layers' states."""
        return sum(state.bytes for state in self.read.states or ())


class HuggingFaceDecoder(DecodingModel):
    """GPT-2 with its `generate` and its key-value cache.

    Args:
        decoder: the sizes of the decoder.
        new: the number of new tokens.
        dtype: the type of its weights and its cache.
    """

    def __init__(self, decoder: DecoderShape, new: int, dtype: torch.dtype = torch.float32) -> None:
        self.model: Any = gpt2(decoder).to(decoder.workload.device, dtype).eval()
        self.new, self.tokens = new, decoder.workload.tokens(decoder.workload.length - new - 1)
        with torch.no_grad():
            read = self.model(self.tokens, use_cache=True, logits_to_keep=1)
        self.cache = read.past_key_values
        self.tokens = torch.cat((self.tokens, read.logits.argmax(-1)), dim=1)
        self.rewind()

    def rewind(self) -> None:
        """Copy the cache."""
        self.ahead = copy.deepcopy(self.cache)

    def write(self) -> object:
        """Generate the new tokens greedily."""
        with torch.no_grad():
            return self.model.generate(
                self.tokens,
                attention_mask=torch.ones_like(self.tokens),
                past_key_values=self.ahead,
                max_new_tokens=self.new,
                do_sample=False,
                pad_token_id=0,
            )

    @property
    def bytes(self) -> int:
        """The bytes of all layers' keys and values."""
        tensors = (tensor for layer in self.cache.layers for tensor in (layer.keys, layer.values))
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def measure(config: DictConfig, *, peers: bool) -> Results:
    """Measure every causal variant that decodes from a state, for every context and batch size.

    Args:
        config: `conf/benchmark.yaml`.
        peers: whether to measure Hugging Face's GPT-2 too.

    Raises:
        ConfigError: no variant decodes from a state after one of the contexts.
    """
    torch.set_flush_denormal(True)
    theirs = peers and find_spec("transformers") is not None
    able = _able(config)
    found = {context: [name for name, longest in able.items() if context <= longest] for context in config.contexts}
    for context, names in found.items():
        if not names:
            raise ConfigError(
                f"variants has none that decodes from a state after a context of {context}, of "
                f"{', '.join(name for name, _ in labelled(config, 'variants'))}; use one that does, such as "
                "{attention: full}."
            )
    once = sum(number_of_turns(len(names) + theirs, rounds=config.rounds) for names in found.values())
    rows: list[Row] = []
    with progress_bar(len(config.batches) * once) as on_progress:
        for batch in config.batches:
            for context, names in found.items():
                on_progress(f"batch {batch}, context {context}")
                subjects = dict(_subjects(config, names, batch, context, theirs))
                rows += _rows(subjects, config, batch, context, on_progress)
    notes = [
        f"{' '.join(config.model)}; {config.new_tokens} tokens are written after each context, greedily.",
        "speed: how many times as fast as the first variant; the median of the rounds' ratios.",
        "state: what is held after the context, with room for the new tokens where it is allocated once.",
        f"{REPEATED}: the first once more; what its speed differs from 1 is noise.",
    ]
    shown = {key: of for key, of in SHOWN.items() if any(row[key] is not None for row in rows)}
    return Results("decoding", rows, shown, ("batch", "context"), plot, notes, absent="-")


def _able(config: DictConfig) -> dict[str, float]:
    """The variants that decode from a state, each with the longest context for which it is measured."""
    found = {}
    for name, entry in labelled(config, "variants"):
        workload = Workload(config.characters, min(config.contexts) + config.new_tokens + 1, 1)
        try:
            task, _ = build_benchmark_model(composed_config([*config.model, *variant_overrides(entry)]), workload)
        except IncompatibleError:  # not causal
            continue
        assert isinstance(task.model, Stack)
        if task.model.incremental:
            found[name] = float(entry.get("longest", math.inf))
    return found


def _subjects(
    config: DictConfig, names: Sequence[str], batch: int, context: int, theirs: bool
) -> Iterator[tuple[str, DecodingModel]]:
    new, dtype = config.new_tokens, getattr(torch, config.dtype)
    workload = Workload(config.characters, context + new + 1, batch)
    for name, entry in labelled(config, "variants"):
        if name in names:
            task, _ = build_benchmark_model(composed_config([*config.model, *variant_overrides(entry)]), workload)
            yield name, XformerDecoder(task.eval().to(dtype), workload, new)
    if theirs:
        size = instantiate_node(composed_config(list(config.model)).size)
        yield PEER, HuggingFaceDecoder(DecoderShape(size, workload), new, dtype)


def _rows(
    subjects: Mapping[str, DecodingModel],
    config: DictConfig,
    batch: int,
    context: int,
    on_progress: Callable[[], object],
) -> Iterator[Row]:
    first = next(iter(subjects))

    @contextmanager
    def rewound(name: str) -> Iterator[None]:
        subjects[first if name == REPEATED else name].rewind()
        yield

    around: Callable[[str], AbstractContextManager[object]] = rewound
    steps = {name: subject.write for name, subject in subjects.items()}
    times = interleaved(steps, rounds=config.rounds, around=around, on_progress=on_progress)
    for name in (*subjects, REPEATED):
        held = subjects[first if name == REPEATED else name].bytes
        yield {
            "batch": batch,
            "context": context,
            "variant": f"{REPEATED}: {first}" if name == REPEATED else name,
            "ms_per_token": 1000 * times.median(name) / config.new_tokens,
            "speed": times.speed(name),
            "speed_against_peer": times.speed(name, against=PEER) if PEER in subjects else None,
            "goal": config.goal if name in subjects and name != PEER else None,
            "state_bytes": held,
            "state_mb": held / 1e6,
        }


def plot(rows: Sequence[Row], path: Path) -> None:
    """Milliseconds per token by context, a panel for each batch."""
    plot_by_length(
        [row for row in rows if REPEATED not in row["variant"]],
        path,
        x="context",
        y="ms_per_token",
        panel="batch",
        names={batch: f"batch {batch}" for batch in dict.fromkeys(row["batch"] for row in rows)},
        label="ms per token",
    )
