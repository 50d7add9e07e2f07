"""Text for language modelling: random windows to train, consecutive blocks to evaluate."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from xformer.data.base import DataModule
from xformer.data.batch import LanguageModelingBatch
from xformer.data.cache import cached, digest, fingerprint
from xformer.data.facts import Facts
from xformer.data.packing import Blocks, cut, pack, unpack
from xformer.data.sampler import Draws, Order
from xformer.data.sources import Documents, read
from xformer.data.tokenizer import Tokenizer
from xformer.errors import ConfigError, DataError

# Raise it whenever the packing changes: a cache written by another version is then not found.
VERSION = 1


class Text(DataModule):
    """Documents, one after the other, in blocks. With neither `files` nor `dataset` it is Python's own prose.

    A dataset's own validation and test splits are used; otherwise the ends of the text are held out. The tokenizer is
    trained on the training part alone. An epoch is as many random windows as there are whole blocks in that part.

    Args:
        seed: Offsets of the training windows.
        cache: Where the tokens are kept.
        files: A path, a glob pattern, or several of either.
        dataset: A local dataset directory, or a name on the hub.
        dataset_config: Of the dataset, where it has several.
        column: Of the dataset: the one with the text.
        tokenizer: Trained here, unless the cache has it trained.
        block: Tokens of a sequence.
        validation_fraction: Share of the characters to validate on, if the source has no validation split.
        test_fraction: Share of the characters to test on, if the source has no test split; 0 for no test.
        batch_size: Sequences per step over all devices.
        num_workers: Processes that fetch ahead.

    Raises:
        ConfigError: If both `files` and `dataset` are given, or a number is out of range.
        DataError: In `prepare_data`, if the text cannot be read; in `setup`, if a split is shorter than a block.
    """

    yields: ClassVar[type] = LanguageModelingBatch
    pads: ClassVar[bool] = False

    def __init__(
        self,
        seed: int,
        cache: Path,
        *,
        files: str | list[str] | None,
        dataset: str | None,
        dataset_config: str | None,
        column: str,
        tokenizer: Tokenizer,
        block: int,
        validation_fraction: float,
        test_fraction: float,
        batch_size: int,
        num_workers: int,
    ) -> None:
        super().__init__(seed, cache, batch_size=batch_size, num_workers=num_workers)
        if files is not None and dataset is not None:
            raise ConfigError(f"data.files={files} and data.dataset={dataset} exclude each other: set one to null.")
        if block < 1:
            raise ConfigError(f"data.block={block} must be at least 1.")
        if validation_fraction <= 0 or test_fraction < 0 or validation_fraction + test_fraction >= 1:
            raise ConfigError(
                f"data.validation_fraction={validation_fraction} must be positive, data.test_fraction={test_fraction} "
                "not negative, and both together must leave something to train on."
            )
        self.files, self.dataset, self.dataset_config, self.column = files, dataset, dataset_config, column
        self.tokenizer, self.block = tokenizer, block
        self.validation_fraction, self.test_fraction = validation_fraction, test_fraction
        self._entry: Path | None = None

    def prepare_data(self) -> None:
        """Read, cut and tokenise, unless it is cached.

        Raises:
            DataError: If the text cannot be read.
        """
        self._entry = self._prepare()

    def _prepare(self) -> Path:
        splits = self._cut(read(self.files, self.dataset, self.dataset_config, self.column))
        content = {name: _hash(documents) for name, documents in splits.items()}
        name = f"text-{digest(VERSION, content, type(self.tokenizer).__name__, self.tokenizer.settings())}"
        return cached(self.cache, name, lambda directory: pack(directory, splits, self.tokenizer))

    def _cut(self, found: dict[str, Documents]) -> dict[str, Documents]:
        """Hold out of "train" what the source does not bring itself."""
        wanted = {"val": self.validation_fraction, "test": self.test_fraction}
        missing = {name: fraction for name, fraction in wanted.items() if name not in found and fraction > 0}
        train, *held_out = cut(found["train"], list(missing.values()))
        splits = {**found, "train": train, **dict(zip(missing, held_out, strict=True))}
        return {name: splits[name] for name in ("train", "val", "test") if name in splits}

    def load(self) -> None:
        """Map the tokens into memory.

        Raises:
            DataError: If a split is shorter than one block and its last label.
        """
        entry = self._entry or self._prepare()
        self.tokenizer.load(entry)
        flat = unpack(entry)
        for name, tokens in flat.items():
            if len(tokens) <= self.block:
                raise DataError(
                    f"data.block={self.block} is too long for the {len(tokens):,} tokens of the {name} split: use a "
                    f"smaller block, more text, or another data.{'test' if name == 'test' else 'validation'}_fraction."
                )
        self.floors: dict[str, float] = {}
        self.facts = Facts(vocabulary=self.tokenizer.vocabulary, length=self.block, end=self.tokenizer.end_of_text)
        self.fingerprint = fingerprint(entry)
        self.tokens = {name: len(tokens) for name, tokens in flat.items()}
        self.splits = {
            name: Blocks(tokens, self.block, 1 if name == "train" else self.block) for name, tokens in flat.items()
        }

    def order(self) -> Order:
        """Random windows, as many as there are whole blocks."""
        return Draws(len(self.splits["train"]), self.tokens["train"] // self.block)

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Ids of a text, without the end of text."""
        return self.tokenizer.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text."""
        return self.tokenizer.decode(tokens)

    def save(self, directory: Path) -> None:
        """Leave the facts and the tokenizer."""
        super().save(directory)
        self.tokenizer.save(directory)

    def restore(self, directory: Path) -> None:
        """Take over the facts and the tokenizer."""
        super().restore(directory)
        self.tokenizer.load(directory)

    def describe(self) -> str:
        """Source, sizes of the splits and tokenizer."""
        source = self.files or self.dataset or "Python's own prose"
        sizes = "/".join(f"{size:,}" for size in self.tokens.values())
        kind = type(self.tokenizer).__name__
        return f"Text ({source}): {sizes} {kind} tokens of {self.facts.vocabulary:,}, blocks of {self.block}"


def _hash(documents: Documents) -> str:
    content = hashlib.sha256()
    for document in documents:
        encoded = document.encode("utf-8", errors="surrogatepass")
        content.update(len(encoded).to_bytes(8, "little") + encoded)
    return content.hexdigest()
