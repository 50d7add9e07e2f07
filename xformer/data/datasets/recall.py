"""Multi-query associative recall (Arora et al. 2023, "Zoology", section 4): which value came with this key?

A sequence begins with pairs of a key and a value. Every key comes once more, later, and there the next token to predict
is its value; nothing else is asked. The gap before a query follows a power law, as repeated bigrams do in text.
"""

from functools import partial
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Gt
from jaxtyping import Float64, Int64

from xformer.data.batch import IGNORED, LanguageModelingBatch
from xformer.data.configs import DataContext, FreshGenerationConfig, LoaderConfig
from xformer.data.datasets.generated import Generated, Items
from xformer.data.spec import DataSpec
from xformer.errors import ConfigError

Tokens = Int64[np.ndarray, " length"]
_BLANK = 0


def recalled(
    _: int,
    generator: np.random.Generator,
    *,
    vocabulary: int,
    length: int,
    pairs: int,
    gaps: Float64[np.ndarray, " gaps"],
    random_non_queries: bool,
) -> tuple[Tokens, Tokens]:
    """Create a sequence of pairs and queries, and its labels, which are `IGNORED` except at the queries.

    Args:
        generator: makes it.
        vocabulary: number of tokens: a blank, keys in the first half, values in the second.
        length: tokens of a sequence.
        pairs: of a key and a value.
        gaps: the probability of every gap, in pairs of tokens, between the last pair and a query.
        random_non_queries: whether tokens drawn at random take the place of blanks.
    """
    half, context = vocabulary // 2, 2 * pairs
    keys = 1 + generator.choice(half - 1, pairs, replace=False)
    values = half + generator.choice(vocabulary - half, pairs, replace=False)
    positions = context + 2 * generator.choice(len(gaps), pairs, replace=False, p=gaps)
    tokens = np.full(length, _BLANK, dtype=np.int64)
    if random_non_queries:
        tokens[:] = generator.integers(0, vocabulary, length)
    tokens[0:context:2], tokens[1:context:2], tokens[positions] = keys, values, keys
    labels = np.full(length, IGNORED, dtype=np.int64)
    labels[positions] = values
    return tokens, labels


def stacked_pairs(rows: list[tuple[Tokens, Tokens]]) -> LanguageModelingBatch:
    """Stack sequences into a batch."""
    tokens, labels = (torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))
    return LanguageModelingBatch(tokens, labels)


class Recall(Generated):
    """Multi-query associative recall, with the parameters and the distribution of Zoology's `multiquery_ar`.

    Args:
        context: seed of the order of the training batches; the cache is not used.
        vocabulary: number of tokens: a blank, keys in the first half, values in the second.
        length: tokens of a sequence; even.
        pairs: of a key and a value, at the beginning; no key and no value occurs in two of them.
        power_a: the gap g before a query has a probability proportional to g^(power_a - 1); 1 is uniform.
        random_non_queries: whether the rest is tokens drawn at random; blanks otherwise.
        generation: how many sequences there are, and of what seed.
        loader: size of the batches, and who fetches them.

    Raises:
        ConfigError: the length or the vocabulary has no room for the pairs.
    """

    stable_name: ClassVar[str] = "Recall"
    yields: ClassVar[type] = LanguageModelingBatch
    pads: ClassVar[bool] = False

    def __init__(
        self,
        context: DataContext,
        *,
        vocabulary: Annotated[int, Ge(1)],
        length: Annotated[int, Ge(1)],
        pairs: Annotated[int, Ge(1)],
        power_a: Annotated[float, Gt(0)],
        random_non_queries: bool,
        generation: FreshGenerationConfig,
        loader: LoaderConfig,
    ) -> None:
        super().__init__(context, generation=generation, loader=loader)
        if length % 2:
            raise ConfigError(f"data.length={length} is odd, and every second token is a key: use {length + 1}.")
        if length < 4 * pairs:
            raise ConfigError(
                f"data.length={length} is too short for data.pairs={pairs} and as many queries: use at least "
                f"{4 * pairs}."
            )
        if vocabulary < 2 * pairs + 2:
            raise ConfigError(
                f"data.vocabulary={vocabulary} has too few keys and values for data.pairs={pairs}: use at least "
                f"{2 * pairs + 2}."
            )
        self.vocabulary, self.length, self.pairs, self.power_a = vocabulary, length, pairs, power_a
        self.random_non_queries = random_non_queries

    def items(self, size: int, key: tuple[int, ...]) -> Items[tuple[Tokens, Tokens]]:
        """Create the sequences of one split."""
        gaps = np.arange(1, self.length // 2 - self.pairs + 1) ** (self.power_a - 1.0)
        make = partial(
            recalled,
            vocabulary=self.vocabulary,
            length=self.length,
            pairs=self.pairs,
            gaps=gaps / gaps.sum(),
            random_non_queries=self.random_non_queries,
        )
        return Items(size, key, make, stacked_pairs)

    def load(self) -> None:
        """Create the splits."""
        super().load()
        self.spec = DataSpec(vocabulary=self.vocabulary, length=self.length)
        self.trivial_baselines = {"one of the sequence's values": 1 / self.pairs}

    def describe(self) -> str:
        """Describe the sizes and parameters."""
        return (
            f"Recall: {self.split_sizes()} of {self.length} tokens, {self.pairs} pairs, vocabulary {self.vocabulary:,}"
        )
