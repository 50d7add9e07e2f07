"""Text for language modelling: random windows to train on, windows that count every token once to evaluate on."""

from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge, Interval

from xformer.core.digest import digest, stable_name_of
from xformer.data.arrays import Flat
from xformer.data.batch import LanguageModelingBatch
from xformer.data.cache import cached, fingerprint
from xformer.data.facts import Facts
from xformer.data.floors import unigram
from xformer.data.sampling.loader import Loader
from xformer.data.sampling.sampler import EvaluationBatches, Order, RandomDraws, share_of
from xformer.data.sources.documents import Documents, Extent, cut_documents, extent
from xformer.data.sources.hold_out import check_fractions
from xformer.data.sources.packing import PackedBlocks, PackedWindows, pack, tokens_per_byte, unpack
from xformer.data.sources.text import read_documents
from xformer.data.tokenised import TokenisedData, remark
from xformer.errors import ConfigError, DataError
from xformer.tokenizers.base import Tokenizer

# Raise it whenever the packing changes: a cache written by another version is then not found.
VERSION = 3
SPLITS = {"train": "training", "val": "validation", "test": "test"}


class Text(TokenisedData):
    """Documents, one after the other, in blocks. With neither `files` nor `dataset` it is Python's own prose.

    A dataset's own validation and test splits are used; otherwise the ends of the text are held out. The tokenizer is
    trained on the training part alone. An epoch is as many random windows as there are whole blocks in that part.
    Text is read and tokenised piece by piece and the tokens are mapped from a file, so neither has to fit in memory.

    `floors` holds the test loss, in nats, of predicting each token by its frequency in the training part.

    Args:
        seed: Offsets of the training windows.
        cache: Where the tokens are kept.
        files: A path, a glob pattern, or several of either.
        dataset: A local dataset directory, or a name on the hub.
        dataset_config: Of the dataset, where it has several.
        column: Of the dataset: the one with the text.
        joined: Whether the rows of a dataset are the lines of one document; else each is one.
        streaming: Whether a dataset of the hub is read over the network instead of being downloaded first. It is read
            three times: to know its length and content, to train the tokenizer, and to tokenise.
        tokenizer: Trained here, unless the cache has it trained.
        block: Tokens of a sequence.
        stride: Tokens that an evaluated window counts; it overlaps the one before by the others, which give context.
            None for the whole window. Every token of a split but its first counts once, whatever the stride.
        test_blocks: Further lengths to test at, in tokens: 512 gives `test/loss@512` and its companions.
        validation_fraction: Share of the characters to validate on, if the source has no validation split.
        test_fraction: Share of the characters to test on, if the source has no test split; 0 for no test.
        batch_size: Sequences per step over all devices.
        num_workers: Processes that fetch ahead.

    Raises:
        ConfigError: If both `files` and `dataset` are given, or a number is out of range.
        DataError: In `prepare_data`, if the text cannot be read or a split is empty; in `setup`, if a split is
            shorter than a block.
    """

    yields: ClassVar[type] = LanguageModelingBatch
    pads: ClassVar[bool] = False
    floor_of: ClassVar[str] = "test/loss"

    def __init__(
        self,
        seed: int,
        cache: Path,
        *,
        files: str | list[str] | None,
        dataset: str | None,
        dataset_config: str | None,
        column: str,
        joined: bool,
        streaming: bool,
        tokenizer: Tokenizer,
        block: Annotated[int, Ge(1)],
        stride: Annotated[int, Ge(1)] | None,
        test_blocks: list[Annotated[int, Ge(1)]],
        validation_fraction: Annotated[float, Interval(ge=0, lt=1)],
        test_fraction: Annotated[float, Interval(ge=0, lt=1)],
        batch_size: Annotated[int, Ge(1)],
        num_workers: Annotated[int, Interval(ge=0, le=1024)],
    ) -> None:
        super().__init__(seed, cache, batch_size=batch_size, num_workers=num_workers)
        if files is not None and dataset is not None:
            raise ConfigError(f"data.files={files} and data.dataset={dataset} exclude each other: set one to null.")
        check_fractions(validation_fraction=validation_fraction, test_fraction=test_fraction)
        for length in (block, *test_blocks):
            if stride is not None and stride > length:
                raise ConfigError(
                    f"data.stride={stride} must be at most {length}, the tokens of an evaluated block: "
                    "tokens between two windows would count nowhere."
                )
        if len(set(test_blocks)) < len(test_blocks):
            raise ConfigError(f"data.test_blocks={test_blocks} names a length twice: leave one out.")
        self.files, self.dataset, self.dataset_config, self.column = files, dataset, dataset_config, column
        self.joined, self.streaming = joined, streaming
        self.tokenizer, self.block, self.stride, self.test_blocks = tokenizer, block, stride, test_blocks
        self.validation_fraction, self.test_fraction = validation_fraction, test_fraction

    def prepare(self) -> Path:
        """Read, cut and tokenise, unless it is cached.

        Raises:
            DataError: If the text cannot be read.
        """
        found = read_documents(
            self.files, self.dataset, self.dataset_config, self.column, joined=self.joined, streaming=self.streaming
        )
        extents = {name: extent(documents) for name, documents in found.items()}
        for name, size in extents.items():
            if not size.characters:
                raise DataError(
                    f"The {SPLITS[name]} split of {self._source()} is empty: give one with text"
                    + ("." if name == "train" else ", or none, and a part of the training split is held out.")
                )
        splits, fractions = self._cut(found, extents["train"])
        content = {name: size.content for name, size in extents.items()}
        kind = stable_name_of(type(self.tokenizer)), self.tokenizer.settings()
        name = f"text-{digest(VERSION, content, fractions, *kind)}"
        return cached(self.cache, name, lambda directory: pack(directory, splits, self.tokenizer))

    def _cut(self, found: dict[str, Documents], train: Extent) -> tuple[dict[str, Documents], dict[str, float]]:
        """Hold out of "train" what the source does not bring itself; also the shares held out."""
        wanted = {"val": self.validation_fraction, "test": self.test_fraction}
        if "val" not in found and not self.validation_fraction:
            raise ConfigError(
                f"data.validation_fraction={self.validation_fraction} leaves nothing to validate on, and "
                f"{self._source()} has no validation split: use 0.1, for example."
            )
        missing = {name: fraction for name, fraction in wanted.items() if name not in found and fraction > 0}
        first, *held_out = cut_documents(found["train"], train.characters, list(missing.values()))
        splits = {**found, "train": first, **dict(zip(missing, held_out, strict=True))}
        return {name: splits[name] for name in SPLITS if name in splits}, missing

    def load(self) -> None:
        """Map the tokens into memory.

        Raises:
            DataError: If a split is shorter than one block and its last label.
        """
        entry = self.entry
        self.tokenizer.load(entry)
        flat = unpack(entry)
        if self.test_blocks and "test" not in flat:
            raise DataError(f"data.test_blocks={self.test_blocks} needs a test split: set data.test_fraction, as 0.1.")
        for name, tokens in flat.items():
            longest = max([self.block, *(self.test_blocks if name == "test" else [])])
            if len(tokens) <= longest:
                key = "block" if longest == self.block else "test_blocks"
                raise DataError(
                    f"data.{key}={longest} is too long for the {len(tokens):,} tokens of the {name} split: use a "
                    f"smaller block, more text, or another data.{'test' if name == 'test' else 'validation'}_fraction."
                )
        self.facts = Facts(
            vocabulary=self.tokenizer.vocabulary,
            length=self.block,
            end=self.tokenizer.end_of_text,
            test_lengths=list(self.test_blocks),
            tokens_per_byte=tokens_per_byte(entry),
        )
        self.unread = remark(entry)
        self.floors = {}
        if "test" in flat:
            self.floors["unigram"] = unigram(flat["train"], flat["test"], self.tokenizer.vocabulary)
        self.fingerprint = fingerprint(entry)
        self.tokens = {name: len(tokens) for name, tokens in flat.items()}
        self.splits = {
            name: PackedBlocks(tokens, self.block) if name == "train" else self._windows(tokens, self.block)
            for name, tokens in flat.items()
        }
        further = {f"test@{length}": self._windows(flat["test"], length) for length in self.test_blocks}
        self.splits.update(further)

    def _windows(self, tokens: Flat, block: int) -> PackedWindows:
        return PackedWindows(tokens, block, self.stride or block)

    def _evaluation(self, split: str) -> Loader:
        """Windows in batches of about as many tokens, whatever their length."""
        windows = self.splits[split]
        assert isinstance(windows, PackedWindows)
        rank, world = self._rank_and_world_size()
        size = world * max(1, share_of(self.batch_size, world) * self.block // windows.block)
        batches = EvaluationBatches(len(windows), size, rank=rank, world=world)
        return self._loader(windows, batches)

    def order(self) -> Order:
        """Random windows, as many as there are whole blocks."""
        return RandomDraws(len(self.splits["train"]), self.tokens["train"] // self.block)

    def describe(self) -> str:
        """Source, sizes of the splits and tokenizer."""
        sizes = "/".join(f"{size:,}" for size in self.tokens.values())
        kind = self.tokenizer.kind
        blocks = f"{sizes} {kind} tokens of {self.facts.vocabulary:,}, blocks of {self.block}"
        return f"Text ({self._source()}): {blocks}{self.unread}"

    def _source(self) -> str:
        return str(self.files or self.dataset or "Python's own prose")
