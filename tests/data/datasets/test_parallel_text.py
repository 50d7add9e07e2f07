"""Parallel text: what was written is what is read, split by split, and what is wrong is one sentence."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xformer.data.batch import IGNORED
from xformer.data.datasets import parallel_text
from xformer.data.datasets.parallel_text import Translations, pack_pairs
from xformer.data.sources.corpus import of_rows, survey
from xformer.errors import ConfigError, DataError
from xformer.tokenizers.byte import Byte

WORDS = ["eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn"]
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def corpus(count, seed=0):
    """Numbers in German and English, of one to eight words."""
    generator = np.random.default_rng(seed)
    drawn = [generator.integers(0, 10, generator.integers(1, 9)) for _ in range(count)]
    return [tuple(" ".join(words[i] for i in row) for words in (WORDS, NUMBERS)) for row in drawn]


@pytest.fixture
def files(tmp_path):
    """Aligned files by split, and the options that name them."""
    for split, count, seed in (("train", 60, 0), ("val", 12, 1), ("test", 9, 2)):
        for side, lines in zip(("de", "en"), zip(*corpus(count, seed), strict=True), strict=True):
            (tmp_path / f"{split}.{side}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {
        key: {split: str(tmp_path / f"{split}.{side}") for split in ("train", "val", "test")}
        for key, side in (("source_files", "de"), ("target_files", "en"))
    }


def read(module, split):
    """The pairs of a split, decoded from its batches."""
    batch = module.splits[split].__getitems__(range(len(module.splits[split])))
    return [
        tuple(module.decode(t) for t in row) for row in zip(*(side.tolist() for side in batch[::2][:2]), strict=True)
    ]


@pytest.mark.parametrize("tokenizer", ["character", "byte", "bpe"])
def test_every_split_reads_back(ready, files, tokenizer):
    module = ready("parallel_text", **files, tokenizer=tokenizer)
    for split, count, seed in (("train", 60, 0), ("val", 12, 1), ("test", 9, 2)):
        assert read(module, split) == corpus(count, seed)


def test_a_batch_is_framed_and_padded_to_its_longest(ready, files):
    module = ready("parallel_text", **files, tokenizer="byte")
    spec, size = module.spec, module.tokenizer.vocabulary
    assert (spec.padding, spec.begin, spec.end, spec.vocabulary) == (size, size + 1, size + 2, size + 3)
    batch = module.splits["train"].__getitems__(range(5))
    for (source, target), *row in zip(corpus(60)[:5], *batch[:5], strict=True):
        tokens, real, written, written_real, labels = (side.tolist() for side in row)
        source, target = list(source.encode()), list(target.encode())
        assert tokens == [*source, spec.end] + [spec.padding] * (len(tokens) - len(source) - 1)
        assert sum(real) == len(source) + 1
        assert written == [spec.begin, *target] + [spec.padding] * (len(written) - len(target) - 1)
        assert sum(written_real) == len(target) + 1
        assert labels == [*target, spec.end] + [IGNORED] * (len(labels) - len(target) - 1)
    assert batch.source_padding_mask.all(0).any()
    assert batch.source_padding_mask.any(0).all()
    assert batch.target_padding_mask.any(0).all()


def test_references_are_the_targets_as_given_and_only_where_they_are_scored(ready, files):
    module = ready("parallel_text", **files, max_length=16)
    assert module.splits["val"].__getitems__([3, 0]).references == [corpus(12, 1)[i][1] for i in (3, 0)]
    assert module.splits["train"].__getitems__([0]).references is None


def test_long_training_pairs_are_left_out_and_long_others_cut(ready, files):
    limit = 20
    module = ready("parallel_text", **files, max_length=limit, tokenizer="byte")
    short = [pair for pair in corpus(60) if max(len(side.encode()) for side in pair) < limit]
    cut = [tuple(side.encode()[: limit - 1].decode(errors="replace") for side in pair) for pair in corpus(12, 1)]
    assert 0 < len(short) < 60
    assert read(module, "train") == short
    assert read(module, "val") == cut
    beyond = sum(max(len(s.encode()) for s in pair) >= limit for pair in corpus(12, 1) + corpus(9, 2))
    assert f"{60 - len(short)} training pairs left out as longer or empty, {beyond} others cut" in module.describe()
    assert f"{len(short)}/12/9 pairs of at most 20 Byte tokens of {module.spec.vocabulary};" in module.describe()
    for split in module.splits.values():
        batch = split.__getitems__(range(len(split)))
        assert max(batch.source_tokens.shape[1], batch.target_tokens.shape[1]) <= limit == module.spec.length


def test_an_empty_side_is_not_trained_on_but_tested_on(ready, tmp_path):
    (tmp_path / "a").write_text("one\n\nthree\n")
    (tmp_path / "b").write_text("eins\nzwei\n\n")
    options = {
        key: dict.fromkeys(("train", "val", "test"), str(tmp_path / name))
        for key, name in (("source_files", "a"), ("target_files", "b"))
    }
    module = ready("parallel_text", **options)
    assert read(module, "train") == [("one", "eins")]
    assert read(module, "test") == [("one", "eins"), ("", "zwei"), ("three", "")]
    assert module.splits["test"].__getitems__([2]).references == [""]


def test_held_out_pairs_are_in_one_split_only(ready, files):
    whole = {key: value["train"] for key, value in files.items()}
    module = ready("parallel_text", **whole, val_fraction=0.2, test_fraction=0.1)
    parts = {split: read(module, split) for split in module.splits}
    assert {split: len(part) for split, part in parts.items()} == {"train": 42, "val": 12, "test": 6}
    assert sorted(pair for part in parts.values() for pair in part) == sorted(corpus(60))
    assert read(ready("parallel_text", **whole, val_fraction=0.2, test_fraction=0.1, seed=4), "val") == parts["val"]
    other = ready("parallel_text", **whole, val_fraction=0.2, test_fraction=0.1, split={"seed": 1})
    assert read(other, "val") != parts["val"]
    assert "test" not in ready("parallel_text", **whole, test_fraction=0.0).splits


@pytest.mark.parametrize("tokenizer", ["character", "bpe"])
def test_the_tokenizer_learns_from_both_sides_of_training_alone(ready, files, tokenizer):
    first = ready("parallel_text", **files, tokenizer=tokenizer)
    Path(files["source_files"]["val"]).write_text("ÄÖÜ\n" * 12)
    Path(files["target_files"]["test"]).write_text("ĀĒĪ\n" * 9)
    second = ready("parallel_text", **files, tokenizer=tokenizer)
    assert second.tokenizer.fingerprint == first.tokenizer.fingerprint
    assert second.fingerprint != first.fingerprint
    if tokenizer == "character":
        letters = {letter for pair in corpus(60) for side in pair for letter in side}
        assert first.tokenizer.vocabulary == len(letters) + 1
        assert first.decode(first.encode("fünf wx").tolist()).startswith("fünf w")


def test_a_tokenizer_that_reads_twice_learns_whole_words(ready, files):
    module = ready("parallel_text", **files, tokenizer="wordpiece")
    for word in (*WORDS, *NUMBERS):
        assert len(module.tokenizer.encode(word)) == 1, word


def test_tables_and_datasets_give_the_pairs_of_the_files(ready, files, tmp_path):
    from datasets import Dataset, DatasetDict, Features, Translation, Value

    parts = {"train": corpus(60), "validation": corpus(12, 1), "test": corpus(9, 2)}
    expected = {split: read(ready("parallel_text", **files), split) for split in ("train", "val", "test")}
    nested = Features({"translation": Translation(languages=("de", "en")), "id": Value("int64")})
    (tmp_path / "tables").mkdir()
    for split, pairs in parts.items():
        rows = ["source\ttarget", *("\t".join(pair) for pair in pairs)]
        (tmp_path / "tables" / f"{split}.tsv").write_text("\n".join(rows), encoding="utf-8")
        lines = (json.dumps({"translation": {"de": de, "en": en}}) for de, en in pairs)
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    DatasetDict(
        {
            split: Dataset.from_list(
                [{"translation": {"de": de, "en": en}, "id": i} for i, (de, en) in enumerate(pairs)], features=nested
            )
            for split, pairs in parts.items()
        }
    ).save_to_disk(tmp_path / "nested")
    DatasetDict(
        {s: Dataset.from_dict(dict(zip(("de", "en"), zip(*p, strict=True), strict=True))) for s, p in parts.items()}
    ).save_to_disk(tmp_path / "flat")
    fields = {"source_column": "translation.de", "target_column": "translation.en"}
    names = {"train": "train", "val": "validation", "test": "test"}
    for options in (
        {"files": str(tmp_path / "tables")},
        {"files": {split: str(tmp_path / f"{name}.jsonl") for split, name in names.items()}, **fields},
        {"dataset": str(tmp_path / "nested"), **fields},
        {"dataset": str(tmp_path / "flat"), "source_column": "de", "target_column": "en"},
    ):
        module = ready("parallel_text", **options)
        assert {split: read(module, split) for split in module.splits} == expected


TEXT = st.text(max_size=6).filter(lambda text: not text.startswith("\ufeff"))  # a byte order mark is no text


@settings(max_examples=50, deadline=None)
@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8))
def test_any_text_reads_back(pairs, tmp_path_factory):
    directory, tokenizer = tmp_path_factory.mktemp("entry"), Byte()
    table = of_rows("here", pairs)
    assert survey(table)[0] == len(pairs)
    pack_pairs(directory, {"train": table, "val": table}, tokenizer)
    batch = Translations(directory, "val", tokenizer, 50).__getitems__(range(len(pairs)))
    assert batch.references == [b for _, b in pairs]
    assert [bytes(t for t in row if 0 <= t < 256).decode() for row in batch.labels.tolist()] == batch.references


def test_a_budget_of_tokens_holds_on_both_sides(ready, files):
    module = ready("parallel_text", **files, tokens_per_batch=400)
    seen = 0
    for batch in module.train_dataloader():
        assert max(batch.source_tokens.numel(), batch.target_tokens.numel()) <= 400
        seen += len(batch.labels)
    assert seen == 60
    assert sum(len(batch.labels) for batch in module.test_dataloader()) == 9


def test_a_second_module_does_not_tokenise_again(ready, build, files, monkeypatch, caplog, tmp_path):
    first = ready("parallel_text", **files, tokenizer="bpe")

    def never(*arguments):
        raise AssertionError("tokenised again")

    monkeypatch.setattr(parallel_text, "pack_pairs", never)
    second = ready("parallel_text", **files, tokenizer="bpe", max_length=30, seed=3)
    assert second.tokenizer.fingerprint == first.tokenizer.fingerprint
    assert second.fingerprint != first.fingerprint
    with pytest.raises(AssertionError, match="tokenised again"):
        build("parallel_text", **files, tokenizer="byte").prepare_data()
    monkeypatch.undo()
    (damaged,) = (tmp_path / "cache").glob("parallel_text-*/train.source.bin")
    damaged.write_bytes(damaged.read_bytes()[:-8])
    with caplog.at_level(logging.WARNING):
        assert ready("parallel_text", **files, tokenizer="bpe").fingerprint == first.fingerprint
    assert "damaged" in caplog.text


def test_a_run_directory_is_enough_to_encode_and_decode(ready, build, files, tmp_path):
    module = ready("parallel_text", **files, tokenizer="bpe")
    module.save(tmp_path)
    restored = build("parallel_text", **files, tokenizer="bpe")
    restored.restore(tmp_path)
    ids = restored.encode("drei fünf").tolist()
    assert ids == module.encode("drei fünf").tolist()
    assert ids[-1] == module.spec.end
    assert restored.decode([module.spec.begin, *ids, module.spec.padding, 7]) == "drei fünf"


def refusals(tmp_path):
    (tmp_path / "a").write_text("x\n" * 3)
    (tmp_path / "latin").write_bytes("x\ny\nü\n".encode("latin-1"))
    (tmp_path / "empty").write_text("")
    (tmp_path / "t.tsv").write_text("de\ten\nx\ty\n")
    (tmp_path / "n.jsonl").write_text('{"de": "x", "en": "y"}\n{"de": null, "en": "y"}\n')
    a, empty = str(tmp_path / "a"), str(tmp_path / "empty")
    columns = {"source_column": "de", "target_column": "en"}
    yield {"source_files": a, "target_files": str(tmp_path / "latin")}, "latin is not UTF-8 in line 3: convert"
    yield (
        {"source_files": a, "target_files": str(tmp_path / "none")},
        "target_files=.*none cannot be read .No such file",
    )
    yield {"source_files": empty, "target_files": empty}, "The train split of data.source.source_files=.*empty is empty"
    both = {"train": a, "test": empty}
    yield {"source_files": both, "target_files": both}, "The test split of data.source.source_files=.* is empty"
    yield (
        {"source_files": both, "target_files": a},
        "data.source.source_files has train, test and data.source.target_files train:",
    )
    yield (
        {"source_files": {"dev": a}, "target_files": {"dev": a}},
        "data.source.source_files has dev .* both to the same splits: train",
    )
    yield {"files": str(tmp_path / "t.tsv")}, "data.source.source_column=source is not in .*: its columns are de, en"
    yield {"files": str(tmp_path / "n.jsonl"), **columns}, "has no text in row 2 of data.source.source_column"
    yield {"source_files": a, "target_files": a}, "val_fraction=0.05 .* of 3 pairs leave none for val"
    fractions = {"val_fraction": 0.3, "test_fraction": 0.3}
    yield {"source_files": a, "target_files": a, "max_length": 2, **fractions, "tokenizer": "byte"}, None
    yield {"source_files": str(tmp_path / "t.tsv"), "target_files": str(tmp_path / "t.tsv"), "max_length": 2,
           "val_fraction": 0.4, "test_fraction": 0.0}, "data.max_length=2 leaves no training pair"  # fmt: skip


def test_bad_input_is_one_sentence(ready, tmp_path):
    for options, message in refusals(tmp_path):
        if message is None:
            ready("parallel_text", **options)
            continue
        with pytest.raises((DataError, ConfigError), match=message) as error:
            ready("parallel_text", **options)
        assert "\n" not in str(error.value)


def test_a_dataset_without_the_column_is_refused(ready, tmp_path):
    from datasets import Dataset

    Dataset.from_dict({"de": ["a"], "en": ["b"]}).save_to_disk(tmp_path / "pairs")
    with pytest.raises(
        DataError,
        match=r"data\.source\.target_column=target is not in data\.source\.dataset=.*: its columns are de, en",
    ):
        ready("parallel_text", dataset=str(tmp_path / "pairs"), source_column="de")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "data=parallel_text reads one source"),
        ({"source_files": "a"}, "data=parallel_text reads one source"),
        ({"source_files": "a", "target_files": "b", "dataset": "c"}, "data=parallel_text reads one source"),
        ({"files": "a", "test_fraction": 0.95}, r"data\.split\.test_fraction=0\.95 must leave training data"),
    ],
)
def test_settings_out_of_range_are_refused(build, options, message):
    with pytest.raises(ConfigError, match=message):
        build("parallel_text", **options)
