"""Sequences of random symbols to copy, to reverse or to sort: does a model move content to the right place?

A source is its symbols and the end token; the target is the same symbols in their new order, then the end token.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from xformer.data.batch import IGNORED, Seq2SeqBatch
from xformer.data.cache import digest
from xformer.data.facts import Facts
from xformer.data.pairs import Pairs
from xformer.errors import ConfigError, DataError

Kind = Literal["copy", "reverse", "sort"]
PADDING, BEGIN, END = range(3)
_SPECIAL = 3
_PATIENCE = 20


class Sequences:
    """Sources with what is to be written for each.

    Args:
        sources: token ids of the symbols.
        targets: the same symbols in their new order.
    """

    def __init__(self, sources: list[Int64[np.ndarray, "..."]], targets: list[Int64[np.ndarray, "..."]]) -> None:
        self.sources, self.targets = sources, targets

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def lengths(self) -> Int64[np.ndarray, " pairs"]:
        """Tokens of each source with its end; a target's are as many."""
        return np.array([len(source) + 1 for source in self.sources])

    def __getitems__(self, indices: Sequence[int]) -> Seq2SeqBatch:
        sources, targets = [self.sources[index] for index in indices], [self.targets[index] for index in indices]
        source, target, labels = (
            _padded(sources, 0, PADDING),
            _padded(targets, 1, PADDING),
            _padded(targets, 0, IGNORED),
        )
        target[:, 0] = BEGIN
        for tokens in (source, labels):
            tokens[torch.arange(len(tokens)), torch.tensor([len(row) for row in sources])] = END
        return Seq2SeqBatch(source, source != PADDING, target, target != PADDING, labels)


class Transduction(Pairs):
    """Random symbol sequences, all different, whose lengths are uniform as far as there are enough short ones.

    The sources depend on `generation_seed`, the bounds and the sizes alone: every run's `seed` and every `kind` meet
    the same ones, and no test source occurs in training.

    Args:
        seed: order of the training batches.
        cache: unused: generating takes less than a second.
        kind: what to write.
        symbols: how many different symbols there are.
        min_length: the fewest symbols of a sequence.
        max_length: the most.
        train_size: number of training sequences.
        val_size: number of validation sequences.
        test_size: number of test sequences.
        generation_seed: decides the sequences.
        batch_size: sequences per step over all devices.
        tokens_per_batch: most tokens per step over all devices, in place of `batch_size`.
        num_workers: processes that fetch ahead.

    Raises:
        ConfigError: a bound admits no sequence; in `load`, the bounds admit too few different ones.
    """

    pads: ClassVar[bool] = True

    def __init__(
        self,
        seed: int,
        cache: Path,
        *,
        kind: Kind,
        symbols: int,
        min_length: int,
        max_length: int,
        train_size: int,
        val_size: int,
        test_size: int,
        generation_seed: int,
        batch_size: int,
        tokens_per_batch: int | None = None,
        num_workers: int,
    ) -> None:
        super().__init__(seed, cache, batch_size=batch_size, num_workers=num_workers, tokens_per_batch=tokens_per_batch)
        for key, value, least in (
            ("symbols", symbols, 2),
            ("min_length", min_length, 1),
            ("max_length", max_length, min_length),
            ("train_size", train_size, 1),
            ("val_size", val_size, 1),
            ("test_size", test_size, 1),
            ("generation_seed", generation_seed, 0),
        ):
            if value < least:
                raise ConfigError(f"data.{key}={value} admits no data: use at least {least}.")
        self.kind, self.symbols, self.bounds = kind, symbols, (min_length, max_length)
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        self.generation_seed = generation_seed

    def load(self) -> None:
        """Generate the sequences.

        Raises:
            ConfigError: the bounds admit too few different ones.
        """
        sources = self._generate(sum(self.sizes.values()))
        targets = [_rearranged(source, self.kind) for source in sources]
        first, parts = 0, {}
        for name, size in self.sizes.items():
            parts[name] = Sequences(sources[first : first + size], targets[first : first + size])
            first += size
        self.splits = {**parts}
        self.facts = Facts(
            vocabulary=self.symbols + _SPECIAL, length=self.bounds[1] + 1, padding=PADDING, begin=BEGIN, end=END
        )
        self.floors: dict[str, float] = {}
        self.fingerprint = digest(self.kind, self.sizes, [source.tolist() for source in sources])

    def _generate(self, count: int) -> list[Int64[np.ndarray, "..."]]:
        generator = np.random.default_rng(self.generation_seed)
        shortest, longest = self.bounds
        found: dict[bytes, Int64[np.ndarray, "..."]] = {}
        idle = 0
        while len(found) < count:
            before = len(found)
            lengths = generator.integers(shortest, longest, count, endpoint=True)
            symbols = generator.integers(_SPECIAL, _SPECIAL + self.symbols, (count, longest))
            for row, length in zip(symbols, lengths, strict=True):
                found.setdefault(row[:length].tobytes(), row[:length])
            idle = idle + 1 if len(found) == before else 0
            if idle == _PATIENCE:
                raise ConfigError(
                    f"data.max_length={longest} and data.symbols={self.symbols} admit only about {len(found)} "
                    f"different sequences, but data.train_size, val_size and test_size ask for {count}: widen them or "
                    "ask for fewer."
                )
        rows = list(found.values())
        # A sequence likely to repeat is likely to come early; shuffled, the splits are alike.
        return [rows[index] for index in generator.permutation(len(rows))[:count]]

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Ids of symbols' numbers, from 0, with blanks between them, and the end token.

        Raises:
            DataError: something else is in the text.
        """
        words = text.split()
        wrong = [word for word in words if not (word.isdecimal() and int(word) < self.symbols)]
        if wrong or not words:
            raise DataError(
                f"{text!r} is no sequence of symbols: give numbers from 0 to {self.symbols - 1} with blanks between."
            )
        return np.array([*(int(word) + _SPECIAL for word in words), END])

    def decode(self, tokens: Sequence[int]) -> str:
        """The symbols' numbers, from 0."""
        text = list(tokens)
        text = text[: text.index(END)] if END in text else text
        return " ".join(str(token - _SPECIAL) for token in text if token >= _SPECIAL)

    def describe(self) -> str:
        """Sizes of the splits and range of the lengths."""
        sizes = "/".join(f"{size:,}" for size in self.sizes.values())
        shortest, longest = self.bounds
        return f"Transduction: {self.kind} {sizes} sequences of {shortest} to {longest} of {self.symbols} symbols"


def _rearranged(source: Int64[np.ndarray, " length"], kind: Kind) -> Int64[np.ndarray, " length"]:
    if kind == "sort":
        return np.sort(source)
    return source[::-1] if kind == "reverse" else source


def _padded(rows: list[Int64[np.ndarray, "..."]], start: int, filler: int) -> Int[Tensor, "rows longest_and_one"]:
    """The rows from column `start` on, with room for a token before or after the longest."""
    padded = np.full((len(rows), max(map(len, rows)) + 1), filler)
    for line, row in zip(padded, rows, strict=True):
        line[start : start + len(row)] = row
    return torch.from_numpy(padded)
