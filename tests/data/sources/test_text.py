from pathlib import Path
from typing import ClassVar

import pytest

from xformer.data.sources import text as sources
from xformer.data.sources.documents import Documents
from xformer.errors import ConfigError, DataError

# Importing these emits deprecations that are not ours.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def texts(documents: Documents) -> list[str]:
    found = [""]
    for text, last in documents:
        found[-1] += text
        found += [""] if last else []
    assert found.pop() == ""
    return found


def read(files, dataset, dataset_config, column, *, joined=False, streaming=False):
    source = sources.TextSource(
        files=files, dataset=dataset, dataset_config=dataset_config, column=column, joined=joined, streaming=streaming
    )
    return {split: texts(documents) for split, documents in sources.read_documents(source).items()}


def read_files(files):
    return read(files, None, None, "text")


def save(path: Path, **splits: list[str]) -> str:
    from datasets import Dataset, DatasetDict

    DatasetDict({name: Dataset.from_dict({"text": texts}) for name, texts in splits.items()}).save_to_disk(str(path))
    return str(path)


def test_a_pattern_reads_its_files_by_name(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text(name)
    (tmp_path / "sub.txt").mkdir()
    assert read_files(str(tmp_path / "*.txt")) == {"train": ["a", "b"]}


def test_a_path_with_brackets_is_a_path(tmp_path):
    (tmp_path / "a[1].txt").write_text("a")
    assert read_files(str(tmp_path / "a[1].txt")) == {"train": ["a"]}


@pytest.mark.parametrize("error", ["missing", "empty", "pattern", "encoding", "directory", "none", "second"])
def test_files_that_cannot_be_read_are_named(tmp_path, error):
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "latin.txt").write_bytes("Größe".encode("latin-1"))
    files, message = {
        "missing": ("missing.txt", r"data\.source\.files=.*missing\.txt does not exist: correct the path"),
        "empty": ("empty.txt", r"data\.source\.files=.*empty\.txt is empty: use a file with text"),
        "pattern": ("*.md", r"data\.source\.files=.*\*\.md matches no file .*: correct the pattern"),
        "encoding": ("latin.txt", r"data\.source\.files=.*latin\.txt is not UTF-8 at byte 2: convert the file"),
        "directory": ("", r"data\.source\.files=.* is a directory: add a pattern"),
        "none": ([], r"data\.source\.files=\[\] names no file"),
        "second": (["good.txt", "missing.txt"], r"data\.source\.files=.*missing\.txt does not exist"),
    }[error]
    full = [str(tmp_path / name) for name in files] if isinstance(files, list) else str(tmp_path / files)
    with pytest.raises(DataError, match=message) as caught:
        read_files(full)
    assert "\n" not in str(caught.value)


def test_files_and_dataset_exclude_each_other():
    with pytest.raises(ConfigError, match=r"data\.source\.files=a and data\.source\.dataset=b cannot be combined"):
        read("a", "b", None, "text")


def test_a_saved_dataset_is_read_by_split_without_asking_the_hub(tmp_path, no_network):
    path = save(tmp_path / "saved", train=["one", "", "two"], validation=["three"], other=["four"])
    assert read(None, path, None, "text") == {"train": ["one", "two"], "val": ["three"]}
    assert no_network == []


def test_a_single_saved_split_is_the_training_text(tmp_path):
    from datasets import Dataset

    Dataset.from_dict({"text": ["one"]}).save_to_disk(str(tmp_path / "saved"))
    assert read(None, str(tmp_path / "saved"), None, "text") == {"train": ["one"]}


def test_a_datasets_own_splits_are_used_and_the_rest_is_cut(ready, tmp_path):
    path = save(tmp_path / "saved", train=["ab" * 200], validation=["b" * 50])
    module = ready("text", dataset=path, block=8)
    text = {name: module.tokenizer.decode(split.tokens.array.tolist()) for name, split in module.splits.items()}
    assert text == {"train": "ab" * 180, "val": "b" * 50, "test": "ab" * 20}


def test_a_wrong_column_is_named_with_the_right_ones(tmp_path):
    path = save(tmp_path / "saved", train=["one"])
    with pytest.raises(
        DataError, match=r"data\.source\.column=body is not in data\.source\.dataset=.*: its columns are text\."
    ):
        read(None, path, None, "body")


def test_a_column_without_text_is_refused(tmp_path):
    from datasets import Dataset

    Dataset.from_dict({"text": [1, 2]}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match=r"data\.source\.column=text of data\.source\.dataset=.* holds no text"):
        read(None, str(tmp_path / "saved"), None, "text")


def test_rows_can_be_the_lines_of_one_document(tmp_path):
    path = save(tmp_path / "saved", train=[" = One = \n", "", " It is . \n"], validation=["x"])
    assert read(None, path, None, "text", joined=True) == {"train": [" = One = \n\n It is . \n"], "val": ["x\n"]}


def test_a_directory_of_text_files_has_a_document_for_each_split(tmp_path):
    for split, text in (("train", " a\n"), ("valid", " b\n"), ("test", " c\n")):
        (tmp_path / f"wiki.{split}.raw").write_text(text)
        (tmp_path / f"._wiki.{split}.raw").write_bytes(b"\0\5\x16\7")  # as macOS leaves beside them
    expected = {"train": [" a\n"], "val": [" b\n"], "test": [" c\n"]}
    assert read(None, str(tmp_path), "wikitext-2-raw-v1", "text", joined=True) == expected
    (tmp_path / "wiki.valid.raw").write_bytes(b"ab\xff")
    with pytest.raises(
        DataError, match=r"data\.source\.dataset=.*wiki\.valid\.raw is not UTF-8 at byte 2: convert the file"
    ):
        read(None, str(tmp_path), None, "text")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("streaming", [False, True])
def test_a_directory_of_tables_is_read_whole_or_as_a_stream(tmp_path, streaming, monkeypatch):
    for split in ("train", "test"):
        rows = "".join(f'{{"text": "{split} {number}"}}\n' for number in range(5))
        (tmp_path / f"{split}.jsonl").write_text(rows)
    monkeypatch.setattr(sources, "ROWS", 2)
    # The configuration is the hub's: a directory that has none is read without.
    found = read(None, str(tmp_path), "wikitext-2-raw-v1", "text", streaming=streaming)
    assert found == {split: [f"{split} {number}" for number in range(5)] for split in ("train", "test")}
    with pytest.raises(DataError, match=r"data\.source\.column=body is not in .*: its columns are text\."):
        read(None, str(tmp_path), None, "body", streaming=streaming)


def test_a_stream_that_breaks_off_is_said_so(monkeypatch):
    class Broken:
        column_names: ClassVar = ["text"]

        def select_columns(self, names):
            return self

        def iter(self, size):
            yield {"text": ["one"]}
            raise ConnectionError("no route to host")

    monkeypatch.setattr(sources, "load_dataset_splits", lambda *_, **__: {"train": Broken()})
    with pytest.raises(DataError, match=r"data\.source\.dataset=far ended early \(no route to host\): run again\."):
        read(None, "far", None, "text")


@pytest.mark.parametrize(
    ("option", "offered"),
    [
        ("cifar10", "data=images, or data=digits"),
        ("cifar10_pixels", "data=digits"),
        ("imdb", "data=text_classification, which reads"),
        ("wikitext2", "data.source.dataset=null, which reads"),
        ("multi30k", "data=transduction, which is generated here"),
    ],
)
def test_without_a_network_data_of_the_same_kind_are_offered(option, offered, no_network, build):
    with pytest.raises(DataError, match=f"the hub cannot be reached .* or use .*{offered}"):
        build(option).prepare_data()
