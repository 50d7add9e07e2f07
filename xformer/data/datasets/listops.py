"""ListOps: values of nested expressions over digits (Nangia & Bowman, 2018; Long Range Arena, Tay et al., 2020)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge
from jaxtyping import Int64

from xformer.core.digest import digest
from xformer.data.arrays import Flat
from xformer.data.base import CachedData
from xformer.data.batch import ClassificationBatch
from xformer.data.cache import cached, fingerprint
from xformer.data.configs import DataContext, GenerationConfig, LoaderConfig
from xformer.data.datasets import trees
from xformer.data.labelled import LabelledSequences
from xformer.data.spec import DataSpec
from xformer.data.trivial_baselines import by_feature, majority
from xformer.errors import ConfigError, DataError

# Raise it whenever the generator changes: a cache written by another version is then not found.
VERSION = 1
ROOTS = 4096
PATIENCE = 50


class ListOps(CachedData):
    """ListOps: nested MIN, MAX, MED and SM (sum modulo 10) over digits; the label is the value. All trees differ.

    The trees depend on `generation.seed` alone, so that every run's own seed meets the same ones.

    Args:
        context: Seed of the order of the training batches, and where the generated trees are kept.
        max_depth: Levels of a tree; the root is one.
        max_args: Most arguments of an operator; the fewest are 2.
        min_length: Every tree has more tokens than this.
        max_length: Every tree has fewer tokens than this.
        generation: How many trees there are, and of what seed.
        loader: Size of the batches, and who fetches them.

    Raises:
        ConfigError: If the bounds admit no tree; in `prepare_data`, if they admit too few different ones.
    """

    yields: ClassVar[type] = ClassificationBatch
    pads: ClassVar[bool] = True

    def __init__(
        self,
        context: DataContext,
        *,
        max_depth: Annotated[int, Ge(2)],
        max_args: Annotated[int, Ge(2)],
        min_length: Annotated[int, Ge(1)],
        max_length: Annotated[int, Ge(1)],
        generation: GenerationConfig,
        loader: LoaderConfig,
    ) -> None:
        super().__init__(context, loader=loader)
        if max_length < min_length + 2:
            raise ConfigError(
                f"data.max_length={max_length} admits no tree that is longer than data.min_length={min_length}: use at "
                f"least {min_length + 2}."
            )
        self.generation, self.sizes = generation, generation.sizes
        self.shape = (max_depth, max_args, min_length, max_length)

    def prepare(self) -> Path:
        """Generate the trees unless they are cached.

        Raises:
            ConfigError: If the bounds admit too few different trees.
        """
        name = f"listops-{digest(VERSION, self.sizes, self.shape, self.generation.seed)}"
        return cached(self.cache, name, self._build)

    def _build(self, directory: Path) -> None:
        generator = np.random.default_rng(self.generation.seed)
        found = self._generate(generator, sum(self.sizes.values()))
        texts, labels = zip(*found.items(), strict=True)
        # A tree likely to repeat is likely to come early; shuffled, the splits are alike.
        order = generator.permutation(len(texts))
        with (directory / "tokens.bin").open("wb") as file:
            file.writelines(texts[index] for index in order)
        np.array([len(texts[index]) for index in order], dtype=np.int64).tofile(directory / "lengths.bin")
        np.array(labels, dtype=np.uint8)[order].tofile(directory / "labels.bin")

    def _generate(self, generator: np.random.Generator, count: int) -> dict[bytes, int]:
        """Draw `count` different trees: their tokens and values."""
        found: dict[bytes, int] = {}
        idle = 0
        while len(found) < count:
            before = len(found)
            tokens, lengths, values = trees.expressions(generator, ROOTS, *self.shape)
            ends = np.cumsum(lengths)
            for first, last, value in zip((ends - lengths).tolist(), ends.tolist(), values.tolist(), strict=True):
                found[tokens[first:last].tobytes()] = value
                if len(found) == count:
                    break
            idle = idle + 1 if len(found) == before else 0
            if idle == PATIENCE:
                raise ConfigError(
                    f"data.max_length={self.shape[3]} and the other bounds admit only about {len(found)} different "
                    f"trees, but data.generation asks for {count}: widen the bounds or request fewer."
                )
        return found

    def load(self) -> None:
        """Map the trees into memory and compute the trivial baselines."""
        lengths = np.fromfile(self.entry / "lengths.bin", dtype=np.int64)
        labels = np.fromfile(self.entry / "labels.bin", dtype=np.uint8).astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        tokens = Flat(self.entry / "tokens.bin", np.uint8)
        parts: dict[str, LabelledSequences] = {}
        first = 0
        for name, size in self.sizes.items():
            rows = slice(first, first + size)
            parts[name] = LabelledSequences(tokens, offsets[first : first + size + 1], labels[rows], trees.PADDING)
            first += size
        self.splits = {**parts}
        train, test = parts["train"], parts["test"]
        roots, test_roots = (tokens.array[part.offsets[:-1]] for part in (train, test))
        # The bound and not the longest that happened to be drawn: another seed of the generation means the same model.
        self.spec = DataSpec(
            vocabulary=len(trees.SYMBOLS),
            length=self.shape[3] - 1,
            classes=10,
            class_counts=np.bincount(train.labels, minlength=10).tolist(),
            padding=trees.PADDING,
        )
        self.fingerprint = fingerprint(self.entry)
        self.trivial_baselines = {
            "majority class": majority(train.labels, test.labels),
            "root operator": by_feature(roots, train.labels, test_roots, test.labels),
        }
        self.mean_length = float(lengths.mean())

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Encode an expression such as `[MAX 2 [MIN 4 7 ] 0 ]`.

        Raises:
            DataError: something else is in the text.
        """
        words = text.replace("]", " ] ").split()
        wrong = [word for word in words if word not in trees.SYMBOLS[1:]]
        if wrong or not words:
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
        sizes = "/".join(f"{size:,}" for size in self.sizes.values())
        lengths = f"{self.shape[2] + 1} to {self.spec.length}"
        return f"ListOps: {sizes} trees, length {lengths}, {self.mean_length:.0f} on average"
