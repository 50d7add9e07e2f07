"""Sequences of random symbols to copy, to reverse or to sort: does a model move content to the right place?

A source is its symbols and the end token; the target is the same symbols in their new order, then the end token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge
from jaxtyping import Int64

from xformer.core.digest import digest
from xformer.data.base import DataModule
from xformer.data.batch import Seq2SeqBatch
from xformer.data.configs import FreshGenerationConfig
from xformer.data.sampling.order import Fresh, Order
from xformer.data.spec import DataSpec
from xformer.data.splits import Split, pad_pairs
from xformer.errors import ConfigError, DataError

Kind = Literal["copy", "reverse", "sort"]
Symbols = Int64[np.ndarray, "..."]
PADDING, BEGIN, END = range(3)
_SPECIAL = 3
_PATIENCE = 20
_REARRANGED: dict[Kind, Callable[[Symbols], Symbols]] = {
    "copy": lambda source: source,
    "reverse": lambda source: source[::-1],
    "sort": np.sort,
}


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

    def source(self, index: int) -> Symbols:
        """The source of an item."""
        return self.sources[index]

    def __getitems__(self, indices: Sequence[int]) -> Seq2SeqBatch:
        sources = [self.source(index) for index in indices]
        targets = [_REARRANGED[self.kind](source) for source in sources]
        return pad_pairs(sources, targets, padding=PADDING, begin=BEGIN, end=END)


class FreshSequences(Sequences):
    """Source sequences that are drawn anew in every epoch: item i is as long as source i % size.

    Args:
        sources: those whose lengths are taken.
        kind: what is to be written.
        symbols: how many different symbols there are.
        seed: of the generators, with the number of the item.
        held_out: sources, as bytes, that are not drawn.
    """

    def __init__(self, sources: list[Symbols], kind: Kind, symbols: int, seed: int, held_out: set[bytes]) -> None:
        super().__init__(sources, kind)
        self.symbols, self.seed, self.held_out = symbols, seed, held_out

    def source(self, index: int) -> Symbols:
        """Draw the source of an item."""
        generator = np.random.default_rng((self.seed, index))
        while True:
            length = len(self.sources[index % len(self)])
            source: Symbols = generator.integers(_SPECIAL, _SPECIAL + self.symbols, length)
            if source.tobytes() not in self.held_out:
                return source


@dataclass(kw_only=True, eq=False, repr=False)
class Transduction(DataModule):
    """Random symbol sequences to copy, reverse or sort; all differ, with uniform lengths where enough short ones exist.

    The sources depend on `generation.seed`, the bounds and the sizes alone: every run's own seed and every `kind` meet
    the same ones, and no test source occurs in training. `fresh` ones also depend on the run's seed and the epoch.

    Raises:
        ConfigError: a bound admits no sequence; in `load`, the bounds admit too few different ones.
    """

    yields: ClassVar[type] = Seq2SeqBatch
    pads: ClassVar[bool] = True

    kind: Kind  # what to write
    symbols: Annotated[int, Ge(2)]  # how many different symbols there are
    min_length: Annotated[int, Ge(1)]  # the fewest symbols of a sequence
    max_length: Annotated[int, Ge(1)]  # the most
    # further lengths to test at, in symbols: 24 gives `test/sequence_accuracy@24`. The model is built for the longest.
    test_lengths: list[Annotated[int, Ge(1)]]
    # how many sequences there are, and of what seed; `test_size` is that of each further length too, and `fresh` ones
    # have the lengths of those they replace
    generation: FreshGenerationConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_length < self.min_length:
            raise ConfigError(f"data.max_length={self.max_length} must be at least data.min_length={self.min_length}.")
        if len(set(self.test_lengths)) < len(self.test_lengths):
            raise ConfigError(f"data.test_lengths={self.test_lengths} names a length twice: remove one.")

    def load(self) -> None:
        """Generate the sequences.

        Raises:
            ConfigError: the bounds admit too few different ones.
        """
        generator = np.random.default_rng(self.generation.seed)
        found: dict[bytes, Symbols] = {}
        further = {f"test@{length}": length for length in self.test_lengths}
        self.sizes = self.generation.sizes | dict.fromkeys(further, self.generation.test_size)
        bounds = dict.fromkeys(self.generation.sizes, (self.min_length, self.max_length))
        bounds |= {name: (length, length) for name, length in further.items()}
        sources: dict[str, list[Symbols]] = {}
        # Splits of the same lengths are drawn together, so that they are alike.
        for shortest, longest in dict.fromkeys(bounds.values()):
            names = [name for name in self.sizes if bounds[name] == (shortest, longest)]
            rows = iter(self._draw(generator, shortest, longest, sum(self.sizes[name] for name in names), found))
            sources |= {name: [next(rows) for _ in range(self.sizes[name])] for name in names}
        self.splits = {name: Sequences(sources[name], self.kind) for name in self.sizes}
        if self.generation.fresh:
            held_out = {source.tobytes() for name in sources if name != "train" for source in sources[name]}
            fresh = FreshSequences(sources["train"], self.kind, self.symbols, self.generation.seed, held_out)
            self.splits["train"] = fresh
        self.spec = DataSpec(
            vocabulary=self.symbols + _SPECIAL,
            length=max(self.max_length, *self.test_lengths, 0) + 1,
            padding=PADDING,
            begin=BEGIN,
            end=END,
            test_lengths=list(self.test_lengths),
        )
        self.trivial_baselines = {}
        # The hash has the splits in one row, as long as they were drawn together.
        together = [source.tolist() for name in self.sizes for source in sources[name]]
        self.fingerprint = digest(self.kind, self.sizes, together, *(["fresh"] if self.generation.fresh else []))

    def order(self) -> Order:
        """Each sequence once; with fresh generation, each length once with new symbols."""
        return Fresh(self.generation.train_size) if self.generation.fresh else super().order()

    def _draw(
        self, generator: np.random.Generator, shortest: int, longest: int, count: int, found: dict[bytes, Symbols]
    ) -> list[Symbols]:
        """Draw sources that are not among those found."""
        known, idle = len(found), 0
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
        return [rows[index] for index in generator.permutation(len(rows))[:count]]

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Encode symbol numbers, from 0, separated by blanks, and add the end token.

        Raises:
            DataError: something else is in the text.
        """
        words = text.split()
        if not words or not all(word.isdecimal() and int(word) < self.symbols for word in words):
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
        tested = f", tested also at {', '.join(map(str, self.test_lengths))}" if self.test_lengths else ""
        renewed = ", new ones in every epoch" if self.generation.fresh else ""
        return (
            f"Transduction: {self.kind} {self.split_sizes()} sequences of {self.min_length} to {self.max_length} of "
            f"{self.symbols} symbols{tested}{renewed}"
        )
