"""Text for language modelling: random windows for training, and windows that cover every token once for evaluation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge

from xformer.core.digest import digest
from xformer.data.batch import LanguageModelingBatch
from xformer.data.cache import cached, fingerprint
from xformer.data.configs import SplitConfig
from xformer.data.sampling.loader import Loader
from xformer.data.sampling.order import Order, RandomDraws
from xformer.data.sampling.sampler import evaluation_batches, share_of
from xformer.data.sources.documents import cut_documents, extent
from xformer.data.sources.packing import PackedBlocks, PackedWindows, pack, tokens_per_byte, unpack
from xformer.data.sources.text import TextSource, read_documents
from xformer.data.spec import DataSpec
from xformer.data.tokenised import TokenisedData, remark
from xformer.data.trivial_baselines import unigram
from xformer.errors import ConfigError, DataError

VERSION = 3
"""Raised whenever the packing changes: a cache written by another version is then not found."""
SPLITS = {"train": "training", "val": "validation", "test": "test"}


@dataclass(kw_only=True, eq=False, repr=False)
class Text(TokenisedData):
    """Documents concatenated and cut into blocks; by default (no `files` or `dataset`) Python's own prose.

    A dataset's own validation and test splits are used; otherwise the ends of the text are held out. The tokenizer is
    trained on the training part alone. An epoch is as many random windows as there are whole blocks in that part.
    Text is read and tokenised piece by piece and the tokens are mapped from a file, so neither has to fit in memory.

    `trivial_baselines` holds the test loss, in nats, of predicting each token by its frequency in the training part.

    Raises:
        ConfigError: a stride or the lengths to test at do not suit.
    """

    yields: ClassVar[type] = LanguageModelingBatch
    pads: ClassVar[bool] = False
    baseline_metric: ClassVar[str] = "test/loss"

    source: TextSource  # where the text comes from
    block: Annotated[int, Ge(1)]  # tokens of a sequence
    # tokens that an evaluated window counts; it overlaps the one before by the others, which give context. None for the
    # whole window. Every token of a split but its first counts once, whatever the stride.
    stride: Annotated[int, Ge(1)] | None
    # further lengths to test at, in tokens: 512 gives `test/loss@512` and its companions
    test_blocks: list[Annotated[int, Ge(1)]]
    split: SplitConfig  # what is held out where the source has no such split, in shares of the characters

    def __post_init__(self) -> None:
        super().__post_init__()
        shortest = min([self.block, *self.test_blocks])
        if self.stride is not None and self.stride > shortest:
            raise ConfigError(
                f"data.stride={self.stride} must be at most {shortest}, the tokens of an evaluated block: otherwise "
                "tokens between two windows would be skipped."
            )
        if len(set(self.test_blocks)) < len(self.test_blocks):
            raise ConfigError(f"data.test_blocks={self.test_blocks} names a length twice: remove one.")

    def prepare(self) -> Path:
        """Read, cut and tokenise, unless it is cached.

        Raises:
            ConfigError: there is nothing to validate on.
            DataError: the text cannot be read, or a split is empty.
        """
        found = read_documents(self.source)
        extents = {name: extent(documents) for name, documents in found.items()}
        for name, size in extents.items():
            if not size.characters:
                raise DataError(
                    f"The {SPLITS[name]} split of {self._source()} is empty: use one with text"
                    + ("." if name == "train" else ", or none, and a part of the training split is held out.")
                )
        missing = {name: self.split.fractions[name] for name in self.split.missing(found)}
        if 0 in missing.values():
            raise ConfigError(
                f"data.split.val_fraction={self.split.val_fraction} leaves nothing to validate on, and "
                f"{self._source()} has no validation split: use 0.1, for example."
            )
        parts = cut_documents(found["train"], extents["train"].characters, list(missing.values()))
        splits = {**found, **dict(zip(("train", *missing), parts, strict=True))}
        splits = {name: splits[name] for name in SPLITS if name in splits}
        content = {name: size.content for name, size in extents.items()}
        name = f"text-{digest(VERSION, content, missing, *self.tokenizer.identity)}"
        return cached(self.context.cache, name, lambda directory: pack(directory, splits, self.tokenizer))

    def load(self) -> None:
        """Map the tokens into memory.

        Raises:
            DataError: a split is shorter than one block and its last label.
        """
        entry = self.entry
        self.tokenizer.load(entry)
        flat = unpack(entry)
        if self.test_blocks and "test" not in flat:
            raise DataError(
                f"data.test_blocks={self.test_blocks} needs a test split: set data.split.test_fraction, such as 0.1."
            )
        for name, tokens in flat.items():
            longest = max([self.block, *(self.test_blocks if name == "test" else [])])
            if len(tokens) <= longest:
                key = "block" if longest == self.block else "test_blocks"
                raise DataError(
                    f"data.{key}={longest} is too long for the {len(tokens):,} tokens of the {name} split: use a "
                    f"smaller block, more text, or another data.split.{'test' if name == 'test' else 'val'}_fraction."
                )
        self.spec = DataSpec(
            vocabulary=self.tokenizer.vocabulary,
            length=self.block,
            end=self.tokenizer.end_of_text,
            test_lengths=list(self.test_blocks),
            tokens_per_byte=tokens_per_byte(entry),
        )
        self.trivial_baselines = {}
        if "test" in flat:
            self.trivial_baselines["unigram"] = unigram(flat["train"], flat["test"], self.tokenizer.vocabulary)
        self.unread, self.fingerprint = remark(entry), fingerprint(entry)
        self.tokens = {name: len(tokens) for name, tokens in flat.items()}
        windows = {name: (tokens, self.block) for name, tokens in flat.items() if name != "train"}
        windows |= {f"test@{length}": (flat["test"], length) for length in self.test_blocks}
        self.splits = {
            "train": PackedBlocks(flat["train"], self.block),
            **{name: PackedWindows(*window, self.stride or window[1]) for name, window in windows.items()},
        }

    def _evaluation(self, split: str) -> Loader:
        """Windows in batches of about as many tokens, whatever their length."""
        windows = self.splits[split]
        assert isinstance(windows, PackedWindows)
        rank, world = self._rank_and_world_size()
        size = world * max(1, share_of(self.loader.batch_size, world) * self.block // windows.block)
        return self._loader(windows, evaluation_batches(len(windows), size, rank=rank, world=world))

    def order(self) -> Order:
        """Random windows, as many as there are complete blocks."""
        return RandomDraws(len(self.splits["train"]), self.tokens["train"] // self.block)

    def describe(self) -> str:
        """Describe the source, split sizes and tokenizer."""
        sizes = "/".join(f"{size:,}" for size in self.tokens.values())
        blocks = f"{sizes} {self.tokenizer.kind} tokens of {self.spec.vocabulary:,}, blocks of {self.block}"
        return f"Text ({self._source()}): {blocks}{self.unread}"

    def _source(self) -> str:
        return self.source.place or "Python's own prose"
