"""Text for language modelling: random windows for training, and windows that cover every token once for evaluation."""

from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge

from xformer.core.digest import digest, stable_name_of
from xformer.data.arrays import Flat
from xformer.data.batch import LanguageModelingBatch
from xformer.data.cache import cached, fingerprint
from xformer.data.configs import DataContext, LoaderConfig, SplitConfig
from xformer.data.sampling.loader import Loader
from xformer.data.sampling.sampler import EvaluationBatches, Order, RandomDraws, share_of
from xformer.data.sources.documents import Documents, Extent, cut_documents, extent
from xformer.data.sources.packing import PackedBlocks, PackedWindows, pack, tokens_per_byte, unpack
from xformer.data.sources.text import TextSource, read_documents
from xformer.data.spec import DataSpec
from xformer.data.tokenised import TokenisedData, remark
from xformer.data.trivial_baselines import unigram
from xformer.errors import ConfigError, DataError
from xformer.tokenizers.base import Tokenizer

# Raise it whenever the packing changes: a cache written by another version is then not found.
VERSION = 3
SPLITS = {"train": "training", "val": "validation", "test": "test"}


class Text(TokenisedData):
    """Documents concatenated and cut into blocks; by default (no `files` or `dataset`) Python's own prose.

    A dataset's own validation and test splits are used; otherwise the ends of the text are held out. The tokenizer is
    trained on the training part alone. An epoch is as many random windows as there are whole blocks in that part.
    Text is read and tokenised piece by piece and the tokens are mapped from a file, so neither has to fit in memory.

    `trivial_baselines` holds the test loss, in nats, of predicting each token by its frequency in the training part.

    Args:
        context: Seed of the offsets of the training windows, and where the tokens are kept.
        source: Where the text comes from.
        tokenizer: Trained here, unless the cache has it trained.
        block: Tokens of a sequence.
        stride: Tokens that an evaluated window counts; it overlaps the one before by the others, which give context.
            None for the whole window. Every token of a split but its first counts once, whatever the stride.
        test_blocks: Further lengths to test at, in tokens: 512 gives `test/loss@512` and its companions.
        split: What is held out where the source has no such split, in shares of the characters.
        loader: Size of the batches, and who fetches them.

    Raises:
        ConfigError: If a stride or the lengths to test at do not suit.
        DataError: In `prepare_data`, if the text cannot be read or a split is empty; in `setup`, if a split is
            shorter than a block.
    """

    yields: ClassVar[type] = LanguageModelingBatch
    pads: ClassVar[bool] = False
    baseline_metric: ClassVar[str] = "test/loss"

    def __init__(
        self,
        context: DataContext,
        *,
        source: TextSource,
        tokenizer: Tokenizer,
        block: Annotated[int, Ge(1)],
        stride: Annotated[int, Ge(1)] | None,
        test_blocks: list[Annotated[int, Ge(1)]],
        split: SplitConfig,
        loader: LoaderConfig,
    ) -> None:
        super().__init__(context, loader=loader)
        for length in (block, *test_blocks):
            if stride is not None and stride > length:
                raise ConfigError(
                    f"data.stride={stride} must be at most {length}, the tokens of an evaluated block: "
                    "otherwise tokens between two windows would be skipped."
                )
        if len(set(test_blocks)) < len(test_blocks):
            raise ConfigError(f"data.test_blocks={test_blocks} names a length twice: remove one.")
        self.source, self.tokenizer, self.split = source, tokenizer, split
        self.block, self.stride, self.test_blocks = block, stride, test_blocks

    def prepare(self) -> Path:
        """Read, cut and tokenise, unless it is cached.

        Raises:
            DataError: If the text cannot be read.
        """
        found = read_documents(self.source)
        extents = {name: extent(documents) for name, documents in found.items()}
        for name, size in extents.items():
            if not size.characters:
                raise DataError(
                    f"The {SPLITS[name]} split of {self._source()} is empty: use one with text"
                    + ("." if name == "train" else ", or none, and a part of the training split is held out.")
                )
        splits, fractions = self._cut(found, extents["train"])
        content = {name: size.content for name, size in extents.items()}
        kind = stable_name_of(type(self.tokenizer)), self.tokenizer.settings()
        name = f"text-{digest(VERSION, content, fractions, *kind)}"
        return cached(self.cache, name, lambda directory: pack(directory, splits, self.tokenizer))

    def _cut(self, found: dict[str, Documents], train: Extent) -> tuple[dict[str, Documents], dict[str, float]]:
        """Hold out of "train" the splits that the source lacks; also return the fractions held out."""
        if "val" not in found and not self.split.val_fraction:
            raise ConfigError(
                f"data.split.val_fraction={self.split.val_fraction} leaves nothing to validate on, and "
                f"{self._source()} has no validation split: use 0.1, for example."
            )
        missing = {
            name: fraction for name, fraction in self.split.fractions.items() if name not in found and fraction > 0
        }
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
        self.unread = remark(entry)
        self.trivial_baselines = {}
        if "test" in flat:
            self.trivial_baselines["unigram"] = unigram(flat["train"], flat["test"], self.tokenizer.vocabulary)
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
        size = world * max(1, share_of(self.loader.batch_size, world) * self.block // windows.block)
        batches = EvaluationBatches(len(windows), size, rank=rank, world=world)
        return self._loader(windows, batches)

    def order(self) -> Order:
        """Random windows, as many as there are complete blocks."""
        return RandomDraws(len(self.splits["train"]), self.tokens["train"] // self.block)

    def describe(self) -> str:
        """Describe the source, split sizes and tokenizer."""
        sizes = "/".join(f"{size:,}" for size in self.tokens.values())
        kind = self.tokenizer.kind
        blocks = f"{sizes} {kind} tokens of {self.spec.vocabulary:,}, blocks of {self.block}"
        return f"Text ({self._source()}): {blocks}{self.unread}"

    def _source(self) -> str:
        return self.source.place or "Python's own prose"
