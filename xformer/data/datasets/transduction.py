"""Sequences of random symbols to copy, to reverse or to sort: does a model move content to the right place?

A source is its symbols and the end token; the target is the same symbols in their new order, then the end token.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge
from jaxtyping import Int64

from xformer.core.digest import digest
from xformer.data.base import DataModule
from xformer.data.batch import Seq2SeqBatch
from xformer.data.configs import DataContext, FreshGenerationConfig, LoaderConfig
from xformer.data.datasets.generated import Items
from xformer.data.pairs import pad_pairs
from xformer.data.sampling.sampler import Fresh, Order
from xformer.data.spec import DataSpec
from xformer.data.split import Split
from xformer.errors import ConfigError, DataError

Kind = Literal["copy", "reverse", "sort"]
Symbols = Int64[np.ndarray, "..."]
PADDING, BEGIN, END = range(3)
_SPECIAL = 3
_PATIENCE = 20


class Sequences(Split):
    """Source sequences and their targets.

    Args:
        sources: token ids of the symbols.
        kind: what is to be written.
    """

    def __init__(self, sources: list[Symbols], kind: Kind) -> None:
        self.sources, self.kind = sources, kind
        self.lengths: Int64[np.ndarray, " sequences"] = np.array([len(source) + 1 for source in sources])

    def __len__(self) -> int:
        return len(self.sources)

    def __getitems__(self, indices: Sequence[int]) -> Seq2SeqBatch:
        return paired([self.sources[index] for index in indices], self.kind)


def draw_source(
    shape: int, generator: np.random.Generator, *, lengths: Symbols, symbols: int, held_out: set[bytes]
) -> Symbols:
    """Draw a source of the same length as item `number` that is not held out."""
    while True:
        source: Symbols = generator.integers(_SPECIAL, _SPECIAL + symbols, lengths[shape] - 1)
        if source.tobytes() not in held_out:
            return source


def paired(sources: list[Symbols], kind: Kind) -> Seq2SeqBatch:
    """Source sequences and their targets."""
    targets = [_rearranged(source, kind) for source in sources]
    return pad_pairs(sources, targets, padding=PADDING, begin=BEGIN, end=END)


class Transduction(DataModule):
    """Random symbol sequences to copy, reverse or sort; all differ, with uniform lengths where enough short ones exist.

    The sources depend on `generation.seed`, the bounds and the sizes alone: every run's own seed and every `kind` meet
    the same ones, and no test source occurs in training. `fresh` ones also depend on the run's seed and the epoch.

    Args:
        context: seed of the order of the training batches; the cache is not used.
        kind: what to write.
        symbols: how many different symbols there are.
        min_length: the fewest symbols of a sequence.
        max_length: the most.
        test_lengths: further lengths to test at, in symbols: 24 gives `test/sequence_accuracy@24`. The model is built
            for the longest.
        generation: how many sequences there are, and of what seed; `test_size` is that of each further length too, and
            `fresh` ones have the lengths of those they replace.
        loader: size of the batches, and who fetches them.

    Raises:
        ConfigError: a bound admits no sequence; in `load`, the bounds admit too few different ones.
    """

    yields: ClassVar[type] = Seq2SeqBatch
    pads: ClassVar[bool] = True

    def __init__(
        self,
        context: DataContext,
        *,
        kind: Kind,
        symbols: Annotated[int, Ge(2)],
        min_length: Annotated[int, Ge(1)],
        max_length: Annotated[int, Ge(1)],
        test_lengths: list[Annotated[int, Ge(1)]],
        generation: FreshGenerationConfig,
        loader: LoaderConfig,
    ) -> None:
        super().__init__(context, loader=loader)
        if max_length < min_length:
            raise ConfigError(f"data.max_length={max_length} must be at least data.min_length={min_length}.")
        if len(set(test_lengths)) < len(test_lengths):
            raise ConfigError(f"data.test_lengths={test_lengths} names a length twice: remove one.")
        self.kind, self.symbols, self.test_lengths, self.generation = kind, symbols, test_lengths, generation
        further = {f"test@{length}": (length, length) for length in test_lengths}
        self.sizes = generation.sizes | dict.fromkeys(further, generation.test_size)
        self.bounds = dict.fromkeys(("train", "val", "test"), (min_length, max_length)) | further

    def load(self) -> None:
        """Generate the sequences.

        Raises:
            ConfigError: the bounds admit too few different ones.
        """
        sources = self._generate()
        parts = {name: Sequences(rows, self.kind) for name, rows in sources.items()}
        self.splits = {**parts}
        if self.generation.fresh:
            held_out = {source.tobytes() for name in sources if name != "train" for source in sources[name]}
            lengths = parts["train"].lengths
            make = partial(draw_source, lengths=lengths, symbols=self.symbols, held_out=held_out)
            collate = partial(paired, kind=self.kind)
            fresh = Items(self.sizes["train"], (self.generation.seed,), make, collate)
            fresh.lengths = lengths
            self.splits["train"] = fresh
        longest = max(bounds[1] for bounds in self.bounds.values())
        self.spec = DataSpec(
            vocabulary=self.symbols + _SPECIAL,
            length=longest + 1,
            padding=PADDING,
            begin=BEGIN,
            end=END,
            test_lengths=list(self.test_lengths),
        )
        self.trivial_baselines: dict[str, float] = {}
        # The hash has the splits in one row, as long as they were drawn together.
        rows = [source.tolist() for name in self.sizes for source in sources[name]]
        self.fingerprint = digest(self.kind, self.sizes, rows, *(["fresh"] if self.generation.fresh else []))

    def order(self) -> Order:
        """Each sequence once; with fresh generation, each length once with new symbols."""
        return Fresh(self.sizes["train"]) if self.generation.fresh else super().order()

    def _generate(self) -> dict[str, list[Symbols]]:
        generator = np.random.default_rng(self.generation.seed)
        found: dict[bytes, Symbols] = {}
        parts: dict[str, list[Symbols]] = {}
        # Splits of the same lengths are drawn together, so that they are alike.
        for bounds in dict.fromkeys(self.bounds.values()):
            names = [name for name in self.sizes if self.bounds[name] == bounds]
            rows = self._draw(generator, bounds, [self.sizes[name] for name in names], found)
            parts.update(zip(names, rows, strict=True))
        return parts

    def _draw(
        self, generator: np.random.Generator, bounds: tuple[int, int], sizes: list[int], found: dict[bytes, Symbols]
    ) -> list[list[Symbols]]:
        shortest, longest = bounds
        known, count, idle = len(found), sum(sizes), 0
        while len(found) < known + count:
            before = len(found)
            lengths = generator.integers(shortest, longest, count, endpoint=True)
            symbols = generator.integers(_SPECIAL, _SPECIAL + self.symbols, (count, longest))
            for row, length in zip(symbols, lengths, strict=True):
                found.setdefault(row[:length].tobytes(), row[:length])
            idle = idle + 1 if len(found) == before else 0
            if idle == _PATIENCE:
                raise ConfigError(
                    f"data.max_length={longest} and data.symbols={self.symbols} admit only about "
                    f"{len(found) - known} different sequences, but data.generation asks for {count}: raise them or "
                    "request fewer."
                )
        rows = list(found.values())[known:]
        # A sequence likely to repeat is likely to come early; shuffled, the splits are alike.
        chosen = [rows[index] for index in generator.permutation(len(rows))[:count]]
        ends = np.cumsum(sizes).tolist()
        return [chosen[end - size : end] for end, size in zip(ends, sizes, strict=True)]

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Encode symbol numbers, from 0, separated by blanks, and add the end token.

        Raises:
            DataError: something else is in the text.
        """
        words = text.split()
        wrong = [word for word in words if not (word.isdecimal() and int(word) < self.symbols)]
        if wrong or not words:
            raise DataError(
                f"{text!r} is not a sequence of symbols: use numbers from 0 to {self.symbols - 1} with blanks between."
            )
        return np.array([*(int(word) + _SPECIAL for word in words), END])

    def decode(self, tokens: Sequence[int]) -> str:
        """Decode ids as symbol numbers, from 0."""
        text = list(tokens)
        text = text[: text.index(END)] if END in text else text
        return " ".join(str(token - _SPECIAL) for token in text if token >= _SPECIAL)

    def describe(self) -> str:
        """Sizes of the splits and range of the lengths."""
        sizes = "/".join(f"{self.sizes[name]:,}" for name in ("train", "val", "test"))
        shortest, longest = self.bounds["train"]
        tested = f", tested also at {', '.join(map(str, self.test_lengths))}" if self.test_lengths else ""
        renewed = ", new ones in every epoch" if self.generation.fresh else ""
        return (
            f"Transduction: {self.kind} {sizes} sequences of {shortest} to {longest} of {self.symbols} symbols"
            f"{tested}{renewed}"
        )


def _rearranged(source: Symbols, kind: Kind) -> Symbols:
    if kind == "sort":
        return np.sort(source)
    return source[::-1] if kind == "reverse" else source
