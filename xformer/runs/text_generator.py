"""Text generation from typed prompts with a finished run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xformer.config.groups import groups, load_option
from xformer.config.validate import target
from xformer.errors import ConfigError, DataError
from xformer.generation.beam_search import beam_search
from xformer.generation.generate import generate_tokens, stream_tokens
from xformer.generation.logits_processors import LogitsProcessor, RepetitionPenalty, Temperature, TopK, TopP
from xformer.generation.prefixes import Prefixes
from xformer.generation.sampling import ChooseToken, Sampling, most_likely
from xformer.generation.streaming_text import stream_text
from xformer.runs.open_run import OpenedRun
from xformer.tasks.generative import Generative
from xformer.tokenizers.utf8 import unmarked

_SHOWN = 40
_SEEDS = 2**62  # what torch takes, with room for a seed for each prompt
_STEEPEST = 10
"""The largest length penalty; larger ones overflow and order hypotheses by length alone."""


def _able() -> list[str]:
    """The tasks that generate text, as the command line names them."""
    nodes = {option: load_option("task", option).task for option in groups()["task"]}
    found = {option: target(node) for option, node in nodes.items()}
    return [option for option, task in found.items() if isinstance(task, type) and issubclass(task, Generative)]


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """The decoding method: greedy by default, sampling with a temperature, top-k or top-p, beam search with `beams`.

    Attributes:
        max_new: the maximum number of new tokens; None for the length of the longest training sequence.
        temperature: below 1 sharpens the distribution.
        top_k: the number of most likely tokens to sample from.
        top_p: the probability mass to sample from.
        repetition_penalty: above 1 makes tokens that occurred before less likely.
        beams: hypotheses of a beam search; 1 for no search.
        length_penalty: exponent of the length that a hypothesis' log-probability is divided by.
        early_stop: whether a search ends with `beams` finished hypotheses.
        seed: the seed of the first prompt's samples; each further prompt uses the next seed.

    Raises:
            ConfigError: a value is out of range, or sampling is combined with a beam search.
    """

    max_new: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    beams: int = 1
    length_penalty: float = 1.0
    early_stop: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new is not None and self.max_new < 1:
            raise ConfigError(f"max_new={self.max_new} generates nothing; use 1 or more.")
        if self.beams < 1:
            raise ConfigError(f"beams={self.beams} is out of range; use 1 for greedy decoding, or more.")
        if self.beams > 1 and self.samples:
            raise ConfigError(
                f"beams={self.beams} searches for the most likely text and does not sample; leave out temperature, "
                "top_k and top_p, or beams."
            )
        if not 0 <= self.seed < _SEEDS:
            raise ConfigError(f"seed={self.seed} is out of range; use 0 or more, and less than 2 ** 62.")
        if not abs(self.length_penalty) <= _STEEPEST:
            raise ConfigError(f"length_penalty={self.length_penalty} is out of range; use -{_STEEPEST} to {_STEEPEST}.")
        self.logits_processors()

    @property
    def samples(self) -> bool:
        """Whether tokens are sampled."""
        return any(value is not None for value in (self.temperature, self.top_k, self.top_p))

    def logits_processors(self) -> list[LogitsProcessor]:
        """The logits processors, in order."""
        found: list[LogitsProcessor] = []
        if self.repetition_penalty != 1:
            found.append(RepetitionPenalty(self.repetition_penalty))
        if self.temperature is not None:
            found.append(Temperature(self.temperature))
        if self.top_k is not None:
            found.append(TopK(self.top_k))
        if self.top_p is not None:
            found.append(TopP(self.top_p))
        return found


class TextGenerator:
    """Generates text with a finished run.

    Args:
        run: a run whose task generates text.
        settings: the decoding method.
        on_remark: called with remarks, such as that a model recomputes the whole sequence for every token.

    Raises:
        ConfigError: the run's task does not generate text.
    """

    def __init__(self, run: OpenedRun, settings: GenerationSettings, on_remark: Callable[[str], None]) -> None:
        if not isinstance(run.task, Generative):
            raise ConfigError(
                f"{run.directory} is a run of {type(run.task).__name__}, which does not generate text; name a run of "
                f"a task that does: {', '.join(_able())}."
            )
        self.run, self.settings, self.task, self.data = run, settings, run.task, run.data
        self.max_new = run.data.spec.length if settings.max_new is None else settings.max_new
        self.end, self._on_remark = run.data.spec.end, on_remark
        self._shown_remarks: set[str] = set()

    def encode(self, prompts: Sequence[str]) -> list[Tensor]:
        """Token ids of all prompts.

        Raises:
            DataError: naming the first prompt that the model cannot read.
        """
        encoded = []
        for prompt in map(unmarked, prompts):
            shown, longest = _short(prompt), self.task.longest_prompt
            ids = torch.from_numpy(self.data.encode(prompt)).to(self.run.task.device)
            if longest is not None and len(ids) > longest:
                raise DataError(
                    f"The prompt {shown} has {len(ids)} tokens, but the model reads {longest} at most; shorten it."
                )
            read = self.data.decode(ids.tolist())
            if read.split() != prompt.split():
                same = next((i for i, (a, b) in enumerate(zip(prompt, read, strict=False)) if a != b), 0)
                self._on_remark(f"The model reads {_short(prompt[same:])} of the prompt as {_short(read[same:])}.")
            encoded.append(ids)
        return encoded

    def stream(self, prompt: Tensor) -> Iterator[str]:
        """The text for one prompt, piece by piece; a beam search yields one piece."""
        if self.settings.beams > 1:
            yield from self.write([prompt])
            return
        start = self._start([prompt])
        steps = stream_tokens(
            start, self._choice(1, 0, start), end=self.end, logits_processors=self.settings.logits_processors()
        )
        tokens = (token for step in steps for token in step.tolist() if token != self.end)
        yield from stream_text(self.data.decode, tokens, prompt.tolist() if self.task.continues else [])

    def write(self, prompts: Sequence[Tensor], first: int = 0) -> list[str]:
        """The texts for a batch of prompts; `first` is the index of the batch's first prompt among all."""
        start = self._start(prompts)
        if self.settings.beams > 1:
            rows = beam_search(
                start,
                beams=self.settings.beams,
                end=self.end,
                length_penalty=self.settings.length_penalty,
                early_stop=self.settings.early_stop,
                logits_processors=self.settings.logits_processors(),
            ).tokens[:, 0]
        else:
            choice = self._choice(len(prompts), first, start)
            rows = generate_tokens(start, choice, end=self.end, logits_processors=self.settings.logits_processors())
        return [self._text(prompt, row.tolist()) for prompt, row in zip(prompts, rows, strict=True)]

    def _start(self, prompts: Sequence[Tensor]) -> Prefixes:
        start = self.task.prefixes(prompts, self.data.spec, self.max_new)
        for remark in start.remarks:
            if remark not in self._shown_remarks:
                self._on_remark(remark)
                self._shown_remarks.add(remark)
        return start

    def _choice(self, rows: int, first: int, start: Prefixes) -> ChooseToken:
        if not self.settings.samples:
            return most_likely
        seed = self.settings.seed + first
        return Sampling(range(seed, seed + rows), start.max_new, start.tokens.device)

    def _text(self, prompt: Tensor, written: list[int]) -> str:
        if self.end in written:
            written = written[: written.index(self.end)]
        return self.data.decode([*(prompt.tolist() if self.task.continues else []), *written])
