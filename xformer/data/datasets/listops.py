"""ListOps: values of nested expressions over digits (Nangia & Bowman, 2018; Long Range Arena, Tay et al., 2020)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge
from jaxtyping import Int64

from xformer.core.digest import digest
from xformer.data.arrays import Flat, Ragged
from xformer.data.base import CachedData
from xformer.data.batch import ClassificationBatch
from xformer.data.cache import cached, fingerprint
from xformer.data.configs import GenerationConfig
from xformer.data.datasets import trees
from xformer.data.spec import DataSpec
from xformer.data.splits import LabelledSequences
from xformer.data.trivial_baselines import by_feature, class_counts, majority
from xformer.errors import ConfigError, DataError

VERSION = 1
"""Raised whenever the generator changes: a cache written by another version is then not found."""
ROOTS = 4096
PATIENCE = 50


@dataclass(kw_only=True, eq=False, repr=False)
class ListOps(CachedData):
    """ListOps: nested MIN, MAX, MED and SM (sum modulo 10) over digits; the label is the value. All trees differ.

    The trees depend on `generation.seed` alone, so that every run's own seed meets the same ones.

    Raises:
        ConfigError: the bounds admit no tree; in `prepare_data`, they admit too few different ones.
    """

    yields: ClassVar[type] = ClassificationBatch
    pads: ClassVar[bool] = True

    max_depth: Annotated[int, Ge(2)]  # levels of a tree; the root is one
    max_args: Annotated[int, Ge(2)]  # most arguments of an operator; the fewest are 2
    min_length: Annotated[int, Ge(1)]  # every tree has more tokens than this
    max_length: Annotated[int, Ge(1)]  # every tree has fewer tokens than this
    generation: GenerationConfig  # how many trees there are, and of what seed

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_length < self.min_length + 2:
            raise ConfigError(
                f"data.max_length={self.max_length} admits no tree that is longer than data.min_length="
                f"{self.min_length}: use at least {self.min_length + 2}."
            )
        self.shape = (self.max_depth, self.max_args, self.min_length, self.max_length)

    def prepare(self) -> Path:
        """Generate the trees unless they are cached.

        Raises:
            ConfigError: the bounds admit too few different trees.
        """
        name = f"listops-{digest(VERSION, self.generation.sizes, self.shape, self.generation.seed)}"
        return cached(self.context.cache, name, self._build)

    def _build(self, directory: Path) -> None:
        generator = np.random.default_rng(self.generation.seed)
        texts, labels = zip(*self._generate(generator).items(), strict=True)
        # A tree likely to repeat is likely to come early; shuffled, the splits are alike.
        order = generator.permutation(len(texts))
        with (directory / "tokens.bin").open("wb") as file:
            file.writelines(texts[index] for index in order)
        np.array([len(texts[index]) for index in order], dtype=np.int64).tofile(directory / "lengths.bin")
        np.array(labels, dtype=np.uint8)[order].tofile(directory / "labels.bin")

    def _generate(self, generator: np.random.Generator) -> dict[bytes, int]:
        """Draw different trees: their tokens and values."""
        found: dict[bytes, int] = {}
        count, idle = sum(self.generation.sizes.values()), 0
        while len(found) < count:
            before = len(found)
            tokens, lengths, values = trees.expressions(generator, ROOTS, *self.shape)
            ends = np.cumsum(lengths).tolist()
            for first, last, value in zip([0, *ends][: len(ends)], ends, values.tolist(), strict=True):
                found[tokens[first:last].tobytes()] = value
                if len(found) == count:
                    break
            idle = idle + 1 if len(found) == before else 0
            if idle == PATIENCE:
                raise ConfigError(
                    f"data.max_length={self.max_length} and the other bounds admit only about {len(found)} different "
                    f"trees, but data.generation asks for {count}: widen the bounds or request fewer."
                )
        return found

    def load(self) -> None:
        """Map the trees into memory and compute the trivial baselines."""
        lengths = np.fromfile(self.entry / "lengths.bin", dtype=np.int64)
        labels = np.fromfile(self.entry / "labels.bin", dtype=np.uint8).astype(np.int64)
        offsets = np.append(0, np.cumsum(lengths))
        tokens = Flat(self.entry / "tokens.bin", np.uint8)
        parts: dict[str, LabelledSequences] = {}
        first = 0
        for name, size in self.generation.sizes.items():
            last = first + size
            rows = Ragged(tokens, offsets[first : last + 1])
            parts[name] = LabelledSequences(rows, labels[first:last], trees.PADDING)
            first = last
        train, test = parts["train"], parts["test"]
        roots, test_roots = (tokens.array[part.rows.offsets[:-1]] for part in (train, test))
        self.splits, self.fingerprint = parts, fingerprint(self.entry)
        # The bound and not the longest that happened to be drawn: another seed of the generation means the same model.
        self.spec = DataSpec(
            vocabulary=len(trees.SYMBOLS),
            length=self.max_length - 1,
            classes=10,
            class_counts=class_counts(train.labels, 10),
            padding=trees.PADDING,
        )
        by_root = by_feature(roots, train.labels, test_roots, test.labels)
        self.trivial_baselines = {**majority(parts), "root operator": by_root}
        self.mean_length = float(lengths.mean())

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Encode an expression such as `[MAX 2 [MIN 4 7 ] 0 ]`.

        Raises:
            DataError: something else is in the text.
        """
        words = text.replace("]", " ] ").split()
        if not words or not set(words) <= set(trees.SYMBOLS[1:]):
            raise DataError(
                f"{text!r} is not a ListOps expression: write digits, ] and {', '.join(trees.SYMBOLS[11:15])} with "
                "blanks between."
            )
        return np.array([trees.SYMBOLS.index(word) for word in words])

    def decode(self, tokens: Sequence[int]) -> str:
        """Decode an expression, without padding."""
        return " ".join(trees.SYMBOLS[token] for token in tokens if token != trees.PADDING)

    def describe(self) -> str:
        """Sizes of the splits and range of the lengths."""
        lengths = f"{self.min_length + 1} to {self.spec.length}"
        return f"ListOps: {self.split_sizes()} trees, length {lengths}, {self.mean_length:.0f} on average"
