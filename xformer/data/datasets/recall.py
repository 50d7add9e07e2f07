"""Multi-query associative recall (Arora et al. 2023, "Zoology", section 4): which value came with this key?

A sequence begins with pairs of a key and a value. Every key comes once more, later, and there the next token to predict
is its value; nothing else is asked. The gap before a query follows a power law, as repeated bigrams do in text.
"""

from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from jaxtyping import Float64, Int64

from xformer.data.batch import IGNORED, LanguageModelingBatch
from xformer.data.datasets.generated import Generated, Items
from xformer.data.facts import Facts
from xformer.errors import ConfigError

Tokens = Int64[np.ndarray, " length"]
_BLANK = 0


class Recalls(Items[tuple[Tokens, Tokens]]):
    """Sequences of pairs and queries, each with its labels.

    Args:
        size: sequences in an epoch.
        key: of the generators.
        vocabulary: number of tokens: a blank, keys in the first half, values in the second.
        length: tokens of a sequence.
        pairs: of a key and a value.
        gaps: the probability of every gap, in pairs of tokens, between the last pair and a query.
        random_non_queries: whether tokens drawn at random take the place of blanks.
    """

    def __init__(
        self,
        size: int,
        key: tuple[int, ...],
        *,
        vocabulary: int,
        length: int,
        pairs: int,
        gaps: Float64[np.ndarray, " gaps"],
        random_non_queries: bool,
    ) -> None:
        super().__init__(size, key)
        self.vocabulary, self.length, self.pairs, self.gaps = vocabulary, length, pairs, gaps
        self.random_non_queries = random_non_queries

    def row(self, shape: int, generator: np.random.Generator) -> tuple[Tokens, Tokens]:
        """A sequence and its labels, `IGNORED` but at the queries."""
        half, context = self.vocabulary // 2, 2 * self.pairs
        keys = 1 + generator.choice(half - 1, self.pairs, replace=False)
        values = half + generator.choice(self.vocabulary - half, self.pairs, replace=False)
        positions = context + 2 * generator.choice(len(self.gaps), self.pairs, replace=False, p=self.gaps)
        tokens = np.full(self.length, _BLANK, dtype=np.int64)
        if self.random_non_queries:
            tokens[:] = generator.integers(0, self.vocabulary, self.length)
        tokens[0:context:2], tokens[1:context:2], tokens[positions] = keys, values, keys
        labels = np.full(self.length, IGNORED, dtype=np.int64)
        labels[positions] = values
        return tokens, labels

    def batch(self, rows: list[tuple[Tokens, Tokens]]) -> LanguageModelingBatch:
        """Sequences one below the other."""
        tokens, labels = (torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))
        return LanguageModelingBatch(tokens, labels)


class Recall(Generated):
    """Multi-query associative recall, with the parameters and the distribution of Zoology's `multiquery_ar`.

    Args:
        seed: order of the training batches.
        cache: unused: sequences are made when they are asked for.
        vocabulary: number of tokens: a blank, keys in the first half, values in the second.
        length: tokens of a sequence; even.
        pairs: of a key and a value, at the beginning; no key and no value occurs in two of them.
        power_a: the gap g before a query has a probability proportional to g^(power_a - 1); 1 is uniform.
        random_non_queries: whether the rest is tokens drawn at random; blanks otherwise.
        train_size: training sequences in an epoch.
        val_size: number of validation sequences.
        test_size: number of test sequences.
        fresh: whether every epoch has new training sequences.
        generation_seed: decides the sequences.
        batch_size: sequences per step over all devices.
        num_workers: processes that fetch ahead.

    Raises:
        ConfigError: the length or the vocabulary has no room for the pairs.
    """

    stable_name: ClassVar[str] = "Recall"
    yields: ClassVar[type] = LanguageModelingBatch
    pads: ClassVar[bool] = False

    def __init__(
        self,
        seed: int,
        cache: Path,
        *,
        vocabulary: Annotated[int, Ge(1)],
        length: Annotated[int, Ge(1)],
        pairs: Annotated[int, Ge(1)],
        power_a: Annotated[float, Gt(0)],
        random_non_queries: bool,
        train_size: Annotated[int, Ge(1)],
        val_size: Annotated[int, Ge(1)],
        test_size: Annotated[int, Ge(1)],
        fresh: bool,
        generation_seed: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        num_workers: Annotated[int, Interval(ge=0, le=1024)],
    ) -> None:
        super().__init__(
            seed,
            cache,
            train_size=train_size,
            val_size=val_size,
            test_size=test_size,
            fresh=fresh,
            generation_seed=generation_seed,
            batch_size=batch_size,
            num_workers=num_workers,
        )
        if length % 2:
            raise ConfigError(f"data.length={length} is odd, and keys stand at every second place: use {length + 1}.")
        if length < 4 * pairs:
            raise ConfigError(
                f"data.length={length} has no room for data.pairs={pairs} and as many queries: use at least "
                f"{4 * pairs}."
            )
        if vocabulary < 2 * pairs + 2:
            raise ConfigError(
                f"data.vocabulary={vocabulary} has too few keys and values for data.pairs={pairs}: use at least "
                f"{2 * pairs + 2}."
            )
        self.vocabulary, self.length, self.pairs, self.power_a = vocabulary, length, pairs, power_a
        self.random_non_queries = random_non_queries

    def items(self, size: int, key: tuple[int, ...]) -> Recalls:
        """The sequences of one split."""
        gaps = np.arange(1, self.length // 2 - self.pairs + 1) ** (self.power_a - 1.0)
        return Recalls(
            size,
            key,
            vocabulary=self.vocabulary,
            length=self.length,
            pairs=self.pairs,
            gaps=gaps / gaps.sum(),
            random_non_queries=self.random_non_queries,
        )

    def load(self) -> None:
        """Make the splits."""
        super().load()
        self.facts = Facts(vocabulary=self.vocabulary, length=self.length)
        self.floors = {"one of the sequence's values": 1 / self.pairs}

    def describe(self) -> str:
        """Sizes and parameters."""
        return (
            f"Recall: {self.split_sizes()} of {self.length} tokens, {self.pairs} pairs, vocabulary {self.vocabulary:,}"
        )
