import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from xformer.data.batch import IGNORED
from xformer.data.datasets import text
from xformer.data.sources.documents import in_memory
from xformer.data.sources.text import TextSource
from xformer.errors import ConfigError, DataError

PROSE = "".join(f"Line {number}: the quick brown fox jumps over the lazy dog.\n" for number in range(60))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "prose.txt"
    path.write_text(PROSE, encoding="utf-8")
    return path


def tokens_of(module, split):
    return module.splits[split].tokens.array


@pytest.mark.parametrize("tokenizer", ["character", "byte", "bpe", "unigram"])
def test_the_splits_are_consecutive_stretches_of_the_text(ready, file, tokenizer):
    module = ready("text", files=str(file), tokenizer=tokenizer, block=8)
    stretches = [module.tokenizer.decode(tokens_of(module, split).tolist()) for split in ("train", "val", "test")]
    assert "".join(stretches) == PROSE
    assert len(stretches[1]) == pytest.approx(0.1 * len(PROSE), abs=1)
    assert len(stretches[2]) == pytest.approx(0.1 * len(PROSE), abs=1)


def test_each_document_ends_with_the_end_of_text(ready, tmp_path):
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.txt").write_text(name * 20)
    module = ready("text", files=str(tmp_path / "*.txt"), tokenizer="byte", block=4, val_fraction=0.2)
    end = module.tokenizer.end_of_text
    train = tokens_of(module, "train").tolist()
    assert train == [ord("a")] * 20 + [end] + [ord("b")] * 20 + [end] + [ord("c")] * 2 + [end]


def test_a_list_of_files_keeps_its_order(ready, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(name * 50)
    files = [str(tmp_path / "b.txt"), str(tmp_path / "a.txt")]
    module = ready("text", files=files, block=4)
    assert module.tokenizer.decode(tokens_of(module, "train").tolist()) == "b" * 50 + "a" * 30


def test_line_ends_are_kept(ready, tmp_path):
    (tmp_path / "dos.txt").write_bytes(b"one\r\ntwo\r" * 20)
    module = ready("text", files=str(tmp_path / "dos.txt"), tokenizer="byte", block=4)
    assert module.tokenizer.decode(tokens_of(module, "train").tolist()).startswith("one\r\ntwo\rone")


def test_the_default_is_the_prose_of_python(ready):
    from pydoc_data.topics import topics

    module = ready("text", tokenizer="byte")
    first = topics[min(topics)]
    assert module.tokenizer.decode(tokens_of(module, "train")[: len(first.encode())].tolist()) == first
    assert module.describe().startswith("Text (Python's own prose): ")
    assert (module.spec.classes, module.spec.length, module.spec.vocabulary) == (None, 128, 257)


@pytest.mark.parametrize("tokenizer", ["character", "bpe", "unigram", "wordpiece"])
def test_the_tokenizer_learns_from_the_training_part_only(ready, tmp_path, tokenizer):
    paths = [tmp_path / "one.txt", tmp_path / "other.txt"]
    paths[0].write_text(PROSE[:800] + "ÄÖÜ" * 67)
    paths[1].write_text(PROSE[:800] + "xyz" * 67)
    one, other = (ready("text", files=str(path), tokenizer=tokenizer, block=1) for path in paths)
    assert one.tokenizer.fingerprint == other.tokenizer.fingerprint
    assert one.fingerprint != other.fingerprint
    if tokenizer == "character":
        assert set(tokens_of(one, "test").tolist()) == {one.spec.vocabulary - 1}


def test_training_windows_are_runs_of_the_text_and_labels_come_next(ready, file):
    file.write_text("".join(f"{number:05d};" for number in range(600)))  # a window is found in one place only
    module = ready("text", files=str(file), block=16, batch_size=8)
    train = module.tokenizer.decode(tokens_of(module, "train").tolist())
    loader = module.train_dataloader()
    assert len(loader) == len(train) // 16 // 8
    starts = []
    for batch in loader:
        assert type(batch) is module.yields
        assert batch.tokens.shape == batch.labels.shape == (8, 16)
        assert batch.tokens.dtype == batch.labels.dtype == torch.int64
        torch.testing.assert_close(batch.tokens[:, 1:], batch.labels[:, :-1])
        for row, labels in zip(batch.tokens, batch.labels, strict=True):
            window = module.tokenizer.decode([*row.tolist(), labels[-1].item()])
            assert window in train
            starts.append(train.index(window))
    assert len({start % 16 for start in starts}) > 8


@pytest.mark.parametrize("tokenizer", ["character", "byte", "bpe", "unigram", "wordpiece"])
def test_nothing_held_out_reaches_a_tokenizer_or_a_training_batch(build, file, monkeypatch, tokenizer):
    lines = [f"{number:05d};{chr(97 + number % 26)}\n" for number in range(600)]  # each stands in one place only
    file.write_text("".join(lines))
    module = build("text", files=str(file), tokenizer=tokenizer, block=16, batch_size=8)
    learned = []
    train = type(module.tokenizer).train
    monkeypatch.setattr(
        type(module.tokenizer), "train", lambda self, texts: learned.append("".join(texts)) or train(self, texts)
    )
    module.prepare_data()
    module.setup("fit")
    assert learned == ["".join(lines[:480])]
    read, array = set(), tokens_of(module, "train")
    assert module.splits["train"].tokens.path.name == "train.bin"
    windows = {tuple(array[i : i + 17]): range(i, i + 17) for i in range(len(array) - 16)}
    for epoch in range(3):
        loader = module.train_dataloader()
        loader.batch_sampler.set_epoch(epoch)
        for batch in loader:
            for row, labels in zip(batch.tokens, batch.labels, strict=True):
                read.update(windows[*row.tolist(), labels[-1].item()])
    assert len(read) > 0.9 * len(array)
    known = "".join(module.tokenizer.decode(array.tolist()).split())
    assert known == "".join("".join(lines[:480]).split())


def test_a_datasets_own_validation_and_test_reach_no_tokenizer(ready, tmp_path):
    for split, letters in (("train", "abc"), ("valid", "xy"), ("test", "z")):
        (tmp_path / f"wiki.{split}.raw").write_text(f" {letters} \n" * 100)
    module = ready("wikitext2", dataset=str(tmp_path), tokenizer="character", block=8)
    assert "".join(map(chr, module.tokenizer.state()["points"])) == "\n abc"
    assert module.tokenizer.decode(tokens_of(module, "val").tolist()) == " \ufffd\ufffd \n" * 100
    assert module.tokenizer.decode(tokens_of(module, "test").tolist()) == " \ufffd \n" * 100


@pytest.mark.parametrize(
    ("name", "config"), [("wikitext2", "wikitext-2-raw-v1"), ("wikitext103", "wikitext-103-raw-v1")]
)
def test_the_presets_name_what_is_on_the_hub(build, monkeypatch, name, config):
    asked = []
    monkeypatch.setattr(text, "read_documents", lambda source: asked.append(source) or {"train": in_memory([])})
    with pytest.raises(DataError, match=r"The training split of Salesforce/wikitext is empty"):
        build(name).prepare_data()
    assert asked == [
        TextSource(
            files=None, dataset="Salesforce/wikitext", dataset_config=config, column="text", joined=True,
            streaming=False,
        )
    ]  # fmt: skip


def test_further_lengths_are_tested_in_batches_of_as_many_tokens(ready, file):
    module = ready("text", files=str(file), block=8, batch_size=8, stride=4, test_blocks=[16, 200])
    first, *longer = module.test_dataloader()
    assert next(iter(first)).tokens.shape == (8, 8)
    assert [next(iter(loader)).tokens.shape for loader in longer] == [(4, 16), (1, 200)]
    counts = [sum(int((batch.labels != IGNORED).sum()) for batch in loader) for loader in (first, *longer)]
    assert counts == [module.tokens["test"] - 1] * 3
    assert module.spec.test_lengths == [16, 200]


@pytest.mark.parametrize("tokenizer", ["character", "byte", "bpe", "unigram", "wordpiece"])
def test_labels_by_bytes_are_those_of_the_text(ready, tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text("Größe zählt. " * 100)
    (tmp_path / "b.txt").write_text("Ünd mehr €uro!\n" * 60)
    files = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    module = ready("text", files=files, tokenizer=tokenizer, block=8, test_fraction=0.3)
    whole = "Größe zählt. " * 100 + "Ünd mehr €uro!\n" * 60
    stretch = whole[round(0.7 * len(whole)) :]
    ids = tokens_of(module, "test")
    known = {"byte": 1, "character": len(stretch[0].encode()), "wordpiece": len(stretch.split()[0].encode())}
    first = known.get(tokenizer)
    if first is None:  # in bytes, which the library writes as a character each
        end = module.tokenizer.end_of_text
        rest = [module.tokenizer._model.id_to_token(index) for index in ids[1:].tolist() if index != end]
        first = len(stretch.encode()) - sum(map(len, rest))
    expected = (module.tokens["test"] - 1) / (len(stretch.encode()) - first)
    assert module.spec.tokens_per_byte["test"] == pytest.approx(expected, rel=1e-12)


def test_the_floor_is_the_loss_of_the_training_frequencies(ready, tmp_path):
    (tmp_path / "t.txt").write_text("aab" * 80 + "b" * 30 + "ab" * 15)
    module = ready("text", files=str(tmp_path / "t.txt"), tokenizer="character", block=4)
    assert "".join(map(chr, module.tokenizer.state()["points"])) == "ab"
    a, b = 161 / 243, 81 / 243  # one more of each, and of the unknown character, than the 160 and 80
    assert module.tokens["test"] == 30
    assert module.trivial_baselines == {"unigram": pytest.approx(-(14 * np.log(a) + 15 * np.log(b)) / 29)}
    assert module.baseline_metric == "test/loss"


def test_an_empty_split_is_refused(build, tmp_path):
    from datasets import Dataset, DatasetDict

    parts = {"train": ["one two"] * 9, "validation": ["", ""], "test": ["x"]}
    DatasetDict({name: Dataset.from_dict({"text": texts}) for name, texts in parts.items()}).save_to_disk(
        tmp_path / "d"
    )
    with pytest.raises(
        DataError, match=r"The validation split of .*d is empty: use one with text, or none, and a part"
    ):
        build("text", dataset=str(tmp_path / "d")).prepare_data()


def test_nothing_is_held_out_to_validate_on_only_where_the_source_has_a_split(build, ready, file, tmp_path):
    with pytest.raises(
        ConfigError, match=r"data\.split\.val_fraction=0\.0 leaves .* has no validation split: use 0\.1"
    ):
        build("text", files=str(file), val_fraction=0.0).prepare_data()
    for name in ("train", "valid"):
        (tmp_path / "own" / f"wiki.{name}.txt").parent.mkdir(exist_ok=True)
        (tmp_path / "own" / f"wiki.{name}.txt").write_text(name * 20)
    module = ready("text", dataset=str(tmp_path / "own"), block=8, val_fraction=0.0, test_fraction=0.0)
    assert set(module.splits) == {"train", "val"}


def test_without_a_test_fraction_there_is_no_test(ready, file):
    module = ready("text", files=str(file), block=8, test_fraction=0.0)
    assert module.test_dataloader() == []
    assert len(module.val_dataloader()) > 0
    assert list(module.splits) == ["train", "val"]


def test_tokens_are_mapped_with_a_sidecar(ready, file, tmp_path):
    module = ready("text", files=str(file), block=8)
    assert isinstance(tokens_of(module, "train"), np.memmap)
    (sidecar,) = (tmp_path / "cache").glob("text-*/tokens.json")
    content = json.loads(sidecar.read_text())
    sizes = {name: module.tokens[name] - 1 for name in ("train", "val", "test")}  # one byte a character
    assert content == {"dtype": "uint16", "vocabulary": module.spec.vocabulary, "splits": sizes}


@pytest.mark.parametrize("tokenizer", ["character", "byte", "bpe"])
def test_a_second_module_does_not_tokenise_again(ready, build, file, monkeypatch, tokenizer):
    first = ready("text", files=str(file), tokenizer=tokenizer, block=8)

    def never(*arguments: object) -> None:
        raise AssertionError("tokenised again")

    second = build("text", files=str(file), tokenizer=tokenizer, block=16, seed=3)
    monkeypatch.setattr(type(second.tokenizer), "train", never)
    monkeypatch.setattr(type(second.tokenizer), "encode", never)
    second.prepare_data()
    second.setup("fit")
    assert second.fingerprint == first.fingerprint
    assert second.tokenizer.fingerprint == first.tokenizer.fingerprint
    # Another split is other data.
    with pytest.raises(AssertionError, match="tokenised again"):
        build("text", files=str(file), tokenizer=tokenizer, val_fraction=0.2).prepare_data()


def test_each_tokenizer_has_its_own_cache(ready, build, file):
    for kind in ("character", "byte", "unigram", "wordpiece", "bpe"):
        module = ready("text", files=str(file), tokenizer=kind, block=8)
        assert type(module.tokenizer).__name__.lower() == kind
    smaller = build("text", files=str(file), tokenizer="bpe", block=8)
    smaller.tokenizer.vocabulary_size = 270
    smaller.setup("fit")
    assert smaller.spec.vocabulary == 270 < module.spec.vocabulary


def test_setup_alone_does_what_a_rank_without_prepare_data_needs(build, file):
    module = build("text", files=str(file), block=8)
    module.setup("fit")
    assert len(list(module.val_dataloader())) > 0


def test_a_setup_reads_the_source_once(build, file, monkeypatch):
    reads = []
    monkeypatch.setattr(
        text, "read_documents", lambda *source, **options: reads.append(source) or {"train": in_memory([PROSE])}
    )
    module = build("text", files=str(file), block=8)
    module.prepare_data()
    for stage in ("fit", "validate", "test"):
        module.setup(stage)
    assert len(reads) == 1


def test_changed_content_is_tokenised_again(ready, file):
    first = ready("text", files=str(file), block=8)
    file.write_text(PROSE.replace("dog", "cat"))
    second = ready("text", files=str(file), block=8)
    assert second.fingerprint != first.fingerprint
    assert "cat" in second.tokenizer.decode(tokens_of(second, "train").tolist())


@pytest.mark.parametrize("name", ["train.bin", "tokens.json", "tokenizer.json", "manifest.json"])
def test_a_truncated_cache_is_built_again(ready, file, tmp_path, caplog, name):
    first = ready("text", files=str(file), tokenizer="bpe", block=8)
    (damaged,) = (tmp_path / "cache").glob(f"text-*/{name}")
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with caplog.at_level(logging.WARNING):
        second = ready("text", files=str(file), tokenizer="bpe", block=8)
    assert "damaged" in caplog.text
    assert second.fingerprint == first.fingerprint
    assert second.tokenizer.fingerprint == first.tokenizer.fingerprint


def test_a_text_shorter_than_a_block_is_refused(build, tmp_path):
    (tmp_path / "short.txt").write_text("a" * 100)
    module = build("text", files=str(tmp_path / "short.txt"), block=100)
    module.prepare_data()
    with pytest.raises(DataError, match=r"data\.block=100 is too long for the 80 tokens of the train split"):
        module.setup("fit")


def test_a_held_out_part_shorter_than_a_block_is_refused(build, tmp_path):
    (tmp_path / "short.txt").write_text("a" * 100)
    module = build("text", files=str(tmp_path / "short.txt"), block=10)
    module.prepare_data()
    with pytest.raises(DataError, match=r"data\.block=10 is too long for the 10 tokens of the val split"):
        module.setup("fit")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"block": 8, "test_blocks": [400]},
            r"data\.test_blocks=400 is too long for the 3\d\d tokens of the test",
        ),
        ({"block": 8, "test_blocks": [16], "test_fraction": 0.0}, r"data\.test_blocks=\[16\] needs a test split"),
    ],
)
def test_a_further_length_needs_as_much_of_a_test_split(ready, file, overrides, message):
    with pytest.raises(DataError, match=message):
        ready("text", files=str(file), **overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"files": "a.txt", "dataset": "b"},
            r"data\.source\.files=a\.txt and data\.source\.dataset=b cannot be combined",
        ),
        ({"block": 8, "stride": 9}, r"data\.stride=9 must be at most 8"),
        ({"block": 8, "stride": 8, "test_blocks": [4]}, r"data\.stride=8 must be at most 4"),
        ({"test_blocks": [256, 256]}, r"data\.test_blocks=\[256, 256\] names a length twice"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave training data"),
    ],
)
def test_settings_out_of_range_are_refused(build, overrides, message):
    with pytest.raises(ConfigError, match=message):
        build("text", **overrides)
