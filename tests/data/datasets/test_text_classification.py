import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from xformer.data.datasets.text_classification import TextClassification
from xformer.data.sampling.curriculum import Pace
from xformer.errors import ConfigError, DataError

# Importing the libraries that parse emits deprecations that are not ours.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

WORDS = {"good": ["fine", "great", "lovely"], "bad": ["dull", "awful", "boring"]}


def rows(count: int, start: int = 0) -> list[tuple[str, str]]:
    """Texts of unequal length that name their place, three good ones to a bad one."""
    found = []
    for number in range(start, start + count):
        label = "bad" if number % 4 == 0 else "good"
        found.append((f"film {number} " + " ".join(WORDS[label][: 1 + number % 3]), label))
    return found


def write(path: Path, lines: list[tuple[str, str]], header: bool = True) -> str:
    head = ["text\tlabel"] if header else []
    path.write_text("\n".join([*head, *("\t".join(line) for line in lines)]) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    folder = tmp_path / "reviews"
    folder.mkdir()
    for name, count, start in (("train", 40, 0), ("dev", 12, 40), ("test", 8, 52)):
        write(folder / f"{name}.tsv", rows(count, start))
    return folder


@pytest.fixture
def file(tmp_path: Path) -> str:
    return write(tmp_path / "reviews.tsv", rows(60))


def read_back(module: TextClassification, split: str) -> list[tuple[str, str]]:
    items = module.splits[split]
    batch = items.__getitems__(range(len(items)))
    texts = [module.decode(row[:length].tolist()) for row, length in zip(batch.tokens, items.lengths, strict=True)]
    return [(text, module.spec.class_names[label]) for text, label in zip(texts, batch.labels, strict=True)]


@pytest.mark.parametrize("tokenizer", ["character", "byte", "bpe"])
def test_a_directory_is_read_whole_and_back(ready, directory, tokenizer):
    module = ready("text_classification", files=str(directory), tokenizer=tokenizer)
    assert list(module.splits) == ["train", "val", "test"]
    assert read_back(module, "train") == rows(40)
    if tokenizer != "character":  # which has never seen the other numbers' digits together, but all digits
        assert read_back(module, "val") == rows(12, 40)
        assert read_back(module, "test") == rows(8, 52)
    spec = module.spec
    assert (spec.classes, spec.class_names, spec.class_counts) == (2, ["bad", "good"], [10, 30])
    assert (spec.padding, spec.vocabulary) == (module.tokenizer.vocabulary, module.tokenizer.vocabulary + 1)
    assert module.trivial_baselines == {"majority class": 6 / 8}
    assert f"({directory}): 40/12/8 texts of 2 classes" in module.describe()


def test_what_a_file_lacks_is_held_out_by_its_own_seed(ready, file):
    options = {"files": file, "tokenizer": "byte", "val_fraction": 0.2, "test_fraction": 0.1}
    module = ready("text_classification", **options)
    parts = {name: read_back(module, name) for name in module.splits}
    assert {name: len(part) for name, part in parts.items()} == {"train": 42, "val": 12, "test": 6}
    assert sorted(row for part in parts.values() for row in part) == sorted(rows(60))
    assert ready("text_classification", seed=5, **options).fingerprint == module.fingerprint
    assert ready("text_classification", split={"seed": 5}, **options).fingerprint != module.fingerprint
    alone = ready("text_classification", **{**options, "test_fraction": 0.0})
    assert list(alone.splits) == ["train", "val"]
    assert alone.trivial_baselines == {}
    assert alone.test_dataloader() == []


def test_the_default_is_the_prose_of_python_by_chapter(ready):
    from pydoc_data.topics import topics

    module = ready("text_classification", tokenizer="byte", max_length=4000)
    assert module.spec.classes == 8
    assert set(module.spec.class_names) <= set(topics)
    seen = set()
    chapters = {name: " ".join(topics[name].split()) for name in module.spec.class_names}
    for name in module.splits:
        for text, label in read_back(module, name):
            assert text[:200] in chapters[label]
            seen.add(text)
    assert len(seen) == sum(len(split) for split in module.splits.values()) > 300
    assert module.describe().startswith("TextClassification (Python's own prose, by chapter): ")


def test_batches_are_padded_to_their_longest_and_no_further(ready, directory):
    module = ready("text_classification", files=str(directory), tokenizer="byte", batch_size=4)
    longest = set()
    for batch in [*module.train_dataloader(), *module.val_dataloader(), *module.test_dataloader()]:
        assert type(batch) is module.yields
        assert batch.tokens.dtype == batch.labels.dtype == torch.int64
        torch.testing.assert_close(batch.padding_mask, batch.tokens != module.spec.padding)
        lengths = batch.padding_mask.sum(dim=1)
        assert lengths.max() == batch.tokens.shape[1]
        for row, length in zip(batch.padding_mask, lengths, strict=True):
            assert row[:length].all()
        longest.add(batch.tokens.shape[1])
    assert len(longest) > 1


def test_a_long_text_loses_its_end(ready, directory):
    module = ready("text_classification", files=str(directory), tokenizer="byte", max_length=10)
    assert module.spec.length == 10
    texts = [text for text, _ in read_back(module, "val")]
    assert texts == [text[:10] for text, _ in rows(12, 40)]
    assert module.encode("a film of more than ten bytes").tolist() == list(b"a film of ")


def test_a_budget_of_tokens_takes_the_place_of_the_batch_size(ready, directory):
    module = ready("text_classification", files=str(directory), tokenizer="byte", tokens_per_batch=120)
    sizes = []
    for batch in module.train_dataloader():
        assert batch.tokens.numel() <= 120
        sizes.append(len(batch.labels))
    assert sum(sizes) == 40
    assert len(set(sizes)) > 1


def test_balanced_training_shows_each_class_equally_often(ready, directory):
    module = ready("text_classification", files=str(directory), balanced=True, batch_size=4)
    labels = torch.cat([batch.labels for batch in module.train_dataloader()])
    assert torch.bincount(labels).tolist() == [20, 20]
    held_out = torch.cat([batch.labels for batch in module.val_dataloader()])
    assert torch.bincount(held_out).tolist() == [3, 9]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([10, 9, 2, 10], ["2", "9", "10"]),
        (["b", "a", "10", "9"], ["9", "10", "a", "b"]),
        ([-1, 1, 0, 1], ["-1", "0", "1"]),
        ([True, False, True, True], ["False", "True"]),
    ],
)
def test_labels_are_numbered_in_their_own_order(ready, tmp_path, labels, names):
    table = [{"text": f"text {number}", "label": label} for number, label in enumerate(labels)]
    path = tmp_path / "t.json"
    path.write_text("\n".join(json.dumps(row) for row in table) if "a" not in labels else json.dumps(table))
    files = {"train": str(path), "val": str(path)}
    module = ready("text_classification", files=files, tokenizer="byte", test_fraction=0.0)
    assert module.spec.class_names == names
    assert [label for _, label in read_back(module, "val")] == [str(label) for label in labels]


def test_a_dataset_is_read_by_split(ready, tmp_path):
    from datasets import Dataset, DatasetDict

    def part(lines):
        return Dataset.from_dict({"text": [t for t, _ in lines], "label": [int(label == "good") for _, label in lines]})

    DatasetDict(train=part(rows(40)), test=part(rows(8, 40)), unsupervised=part(rows(4, 60))).save_to_disk(
        str(tmp_path / "imdb")
    )
    for preset in ("imdb", "imdb_bytes"):
        module = ready(preset, dataset=str(tmp_path / "imdb"), tokenizer="byte")
        assert {name: len(split) for name, split in module.splits.items()} == {"train": 36, "val": 4, "test": 8}
        assert [text for text, _ in read_back(module, "test")] == [text for text, _ in rows(8, 40)]
    assert module.spec.length == 4000


@pytest.mark.parametrize("tokenizer", ["character", "bpe"])
def test_the_tokenizer_learns_from_the_training_texts_only(ready, directory, tokenizer):
    one = ready("text_classification", files=str(directory), tokenizer=tokenizer)
    for name in ("dev", "test"):
        write(directory / f"{name}.tsv", [("ÄÖÜ 漢字 " * 20, "good"), ("zzz zzz " * 20, "bad")])
    other = ready("text_classification", files=str(directory), tokenizer=tokenizer)
    assert one.tokenizer.fingerprint == other.tokenizer.fingerprint
    assert one.fingerprint != other.fingerprint
    seen = torch.cat([batch.tokens.flatten() for batch in other.train_dataloader()])
    assert set(seen.tolist()) <= {*one.splits["train"].rows.values.array.tolist(), other.spec.padding}


def test_a_second_module_does_not_tokenise_again(ready, build, directory, monkeypatch):
    first = ready("text_classification", files=str(directory), tokenizer="bpe")

    def never(*arguments: object) -> None:
        raise AssertionError("tokenised again")

    second = build("text_classification", files=str(directory), tokenizer="bpe", seed=3, max_length=5)
    monkeypatch.setattr(type(second.tokenizer), "train", never)
    monkeypatch.setattr(type(second.tokenizer), "encode", never)
    second.setup("fit")
    assert second.fingerprint == first.fingerprint
    write(directory / "dev.tsv", rows(11, 40))
    with pytest.raises(AssertionError, match="tokenised again"):
        build("text_classification", files=str(directory), tokenizer="bpe").prepare_data()


@pytest.mark.parametrize("name", ["train.tokens", "val.offsets", "tokens.json", "tokenizer.json"])
def test_a_truncated_cache_is_built_again(ready, directory, tmp_path, caplog, name):
    first = ready("text_classification", files=str(directory))
    (damaged,) = (tmp_path / "cache").glob(f"labelled-*/{name}")
    damaged.write_bytes(damaged.read_bytes()[:-8])
    with caplog.at_level(logging.WARNING):
        second = ready("text_classification", files=str(directory))
    assert "damaged" in caplog.text
    assert second.fingerprint == first.fingerprint
    assert read_back(second, "val") == read_back(first, "val")


def test_a_run_directory_is_enough_to_read_typed_text(ready, build, directory, tmp_path):
    module = ready("text_classification", files=str(directory), tokenizer="bpe", max_length=6)
    module.save(tmp_path)
    restored = build("text_classification", files="gone", tokenizer="bpe", max_length=6)
    restored.restore(tmp_path)
    assert restored.spec == module.spec
    np.testing.assert_array_equal(restored.encode("a dull film"), module.encode("a dull film"))
    assert restored.decode([*restored.encode("dull").tolist(), restored.spec.padding]) == "dull"
    with pytest.raises(DataError, match="An empty text cannot be classified"):
        restored.encode(" ")


def test_a_rare_label_that_is_held_out_names_the_seed_that_held_it_out(build, tmp_path):
    rows = [f"film {number},{'rare' if number == 0 else 'common' if number % 2 else 'usual'}" for number in range(40)]
    (tmp_path / "rare.csv").write_text("text,label\n" + "\n".join(rows))

    def prepare(seed):
        build(
            "text_classification", files=str(tmp_path / "rare.csv"), split={"seed": seed}, tokenizer="byte"
        ).prepare_data()

    outcomes = []
    for seed in range(40):
        try:
            prepare(seed)
            outcomes.append("")
        except DataError as error:
            outcomes.append(str(error))
    refused = [seed for seed, told in enumerate(outcomes) if told]
    assert 0 < len(refused) < 40  # what the sentence offers does work
    for seed in refused:
        assert f"data.split.seed={seed} holds out for " in outcomes[seed]
        assert "the label rare" in outcomes[seed]
        assert "another data.split.seed" in outcomes[seed]


@pytest.mark.parametrize(
    ("split", "line", "message"),
    [
        ("dev", ("a film", "ugly"), r"has the label ugly in val, which no training row has \(those have bad, good\)"),
        (
            "test",
            ("a film", "-1"),
            r"data\.source\.label_column=label has the label -1 in test, which no training row has",
        ),
        ("train", (" ", "good"), r"data\.source\.text_column=text has no text in row 41 of train, only ' '"),
        ("dev", ("a film", ""), r"data\.source\.label_column=label has no label in row 13 of val, only ''"),
    ],
)
def test_a_wrong_row_is_one_sentence(build, directory, split, line, message):
    with (directory / f"{split}.tsv").open("a", encoding="utf-8") as file:
        file.write("\t".join(line) + "\n")
    with pytest.raises(DataError, match=message) as caught:
        build("text_classification", files=str(directory)).prepare_data()
    assert "\n" not in str(caught.value)


def test_a_curriculum_that_would_cancel_the_balance_is_refused(ready):
    module = ready("text_classification", balanced=True)
    module.train_dataloader()
    module.pace = Pace(0.1, 10)
    with pytest.raises(
        ConfigError, match=r"callbacks=curriculum .* data\.balanced=true does not do: use one of the two"
    ):
        module.train_dataloader()


@pytest.mark.parametrize("label", [None, 0.5, [1]])
def test_a_label_is_a_whole_number_or_text(build, tmp_path, label):
    path = tmp_path / "t.json"
    path.write_text(json.dumps([{"text": "one", "label": label}, {"text": "two", "label": label}]))
    with pytest.raises(DataError, match=r"data\.source\.label_column=label has no label in row 1 of train, only"):
        build("text_classification", files=str(path)).prepare_data()


def test_a_single_label_is_nothing_to_learn(build, tmp_path):
    path = write(tmp_path / "t.tsv", [(f"film {number}", "good") for number in range(20)])
    with pytest.raises(DataError, match="has one label alone in the training rows, good"):
        build("text_classification", files=path).prepare_data()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"val_fraction": 0.0},
            r"data\.split\.val_fraction=0\.0 .* of 60 texts leave none for val: choose other fractions",
        ),
        ({"val_fraction": 0.001}, r"data\.split\.val_fraction=0\.001 .* leave none for val"),
        ({"test_fraction": 0.001}, r"data\.split\.test_fraction=0\.001 .* leave none for test"),
    ],
)
def test_an_empty_split_is_refused(build, file, options, message):
    with pytest.raises(ConfigError, match=message):
        build("text_classification", files=file, **options).prepare_data()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"files": "a.csv", "dataset": "b"},
            r"data\.source\.files=a\.csv and data\.source\.dataset=b cannot be combined",
        ),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "must leave training data"),
        (
            {"balanced": True, "tokens_per_batch": 99},
            r"data\.balanced=true and data\.loader\.tokens_per_batch=99 cannot be combined",
        ),
    ],
)
def test_settings_out_of_range_are_refused(build, options, message):
    with pytest.raises(ConfigError, match=message):
        build("text_classification", **options)
