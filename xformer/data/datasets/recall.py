"""Multi-query associative recall (Arora et al. 2023, "Zoology", section 4): which value came with this key?

A sequence begins with pairs of a key and a value. Every key comes once more, later, and there the next token to predict
is its value; nothing else is asked. The gap before a query follows a power law, as repeated bigrams do in text.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt
from jaxtyping import Float64, Int64

from xformer.data.batch import IGNORED, LanguageModelingBatch
from xformer.data.datasets.generated import Generated, Items
from xformer.data.spec import DataSpec
from xformer.errors import ConfigError

Tokens = Int64[np.ndarray, " length"]
_BLANK = 0


def recalled(
    generator: np.random.Generator,
    *,
    vocabulary: int,
    length: int,
    gaps: Float64[np.ndarray, " gaps"],
    pairs: int,
    random_non_queries: bool,
) -> tuple[Tokens, Tokens]:
    """Create a sequence of pairs and queries, and its labels, which are `IGNORED` except at the queries.

    The arguments are those of `Recall`, but for `gaps`: the probability of every gap, in pairs of tokens, between the
    last pair and a query.
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


@dataclass(kw_only=True, eq=False, repr=False)
class Recall(Generated):
    """Multi-query associative recall, with the parameters and the distribution of Zoology's `multiquery_ar`.

    Raises:
        ConfigError: the length or the vocabulary has no room for the pairs.
    """

    stable_name: ClassVar[str] = "Recall"
    yields: ClassVar[type] = LanguageModelingBatch

    vocabulary: Annotated[int, Ge(1)]  # number of tokens: a blank, keys in the first half, values in the second
    length: Annotated[int, Ge(1)]  # tokens of a sequence; even
    pairs: Annotated[int, Ge(1)]  # of a key and a value, at the beginning; no key and no value occurs in two of them
    # the gap g before a query has a probability proportional to g^(power_a - 1); 1 is uniform
    power_a: Annotated[float, Gt(0)]
    random_non_queries: bool  # whether the rest is tokens drawn at random; blanks otherwise

    def __post_init__(self) -> None:
        super().__post_init__()
        length, pairs = self.length, self.pairs
        if length % 2:
            raise ConfigError(f"data.length={length} is odd, and every second token is a key: use {length + 1}.")
        if length < 4 * pairs:
            raise ConfigError(
                f"data.length={length} is too short for data.pairs={pairs} and as many queries: use at least "
                f"{4 * pairs}."
            )
        if self.vocabulary < 2 * pairs + 2:
            raise ConfigError(
                f"data.vocabulary={self.vocabulary} has too few keys and values for data.pairs={pairs}: use at least "
                f"{2 * pairs + 2}."
            )

    def items(self, size: int, key: tuple[int, ...]) -> Items:
        """Create the sequences of one split."""
        gaps = np.arange(1, self.length // 2 - self.pairs + 1) ** (self.power_a - 1.0)
        options = {name: getattr(self, name) for name in ("vocabulary", "length", "pairs", "random_non_queries")}
        return Items(size, key, partial(recalled, gaps=gaps / gaps.sum(), **options), LanguageModelingBatch)

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
