"""A file with a byte order mark is the same file without it, whoever reads it; other encodings get a sentence."""

import codecs
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xformer.commands.generate import _lines
from xformer.data.datasets.text_classification import LabelledTextSource
from xformer.data.sources.corpus import ParallelSource, of_files
from xformer.data.sources.tables import read_tables
from xformer.data.sources.text import TextSource, read_documents
from xformer.errors import DataError
from xformer.tokenizers.file import File

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

COLUMNS = {"text_column": "text", "label_column": "label"}
TEXT, ROWS = "good\nschön\n", [{"text": "good", "label": "1"}, {"text": "schön", "label": "0"}]


def table(path: Path, names: list[str] | None = None) -> Any:
    source = LabelledTextSource(files=str(path), dataset=None, dataset_config=None, column_names=names, **COLUMNS)
    return {split: list(rows) for split, rows in read_tables(source).items()}


def documents(files: str | None = None, dataset: str | None = None, *, joined: bool = False) -> Any:
    source = TextSource(
        files=files, dataset=dataset, dataset_config=None, column="text", joined=joined, streaming=False
    )
    return {split: list(part) for split, part in read_documents(source).items()}


def in_directory(path: Path, *, joined: bool = False, suffix: str = ".txt") -> Any:
    """The same file as the training split of a local dataset."""
    directory = path.parent / f"as{suffix}"
    directory.mkdir()
    (directory / f"train{suffix}").write_bytes(path.read_bytes())
    return documents(dataset=str(directory), joined=joined)


def pairs(path: Path) -> Any:
    return list(of_files(str(path), str(path)))


def rows_of_pairs(path: Path) -> Any:
    directory = path.parent / "pairs"
    directory.mkdir()
    (directory / "train.csv").write_bytes(path.read_bytes())
    source = ParallelSource(
        source_files=None, target_files=None, files=None, dataset=str(directory), dataset_config=None,
        column_names=None, source_column="text", target_column="text",
    )  # fmt: skip
    return list(read_tables(source)["train"])


def tokenizer(path: Path) -> Any:
    found = File(path=str(path))
    return found.encode("ab").tolist(), found.settings()


CSV = "text,label\ngood,1\nschön,0\n"
QUOTED = '"good",1\nschön,0\n'
MODEL = '{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}}'
READERS: dict[str, tuple[str, str, Callable[[Path], Any]]] = {
    "documents": ("a.txt", TEXT, lambda path: documents(str(path))),
    "text files by split": ("a.txt", TEXT, in_directory),
    "dataset of csv": ("a.csv", CSV, lambda path: in_directory(path, suffix=".csv")),
    "joined rows": ("a.csv", CSV, lambda path: in_directory(path, suffix=".csv", joined=True)),
    "csv": ("a.csv", CSV, table),
    "csv without names": ("a.csv", QUOTED, lambda path: table(path, ["text", "label"])),
    "tsv": ("a.tsv", CSV.replace(",", "\t"), table),
    "json": ("a.json", '[{"text": "good", "label": 1}]', table),
    "jsonl": ("a.jsonl", '{"text": "good", "label": 1}\n', table),
    "pairs": ("a.txt", TEXT, pairs),
    "pairs of a dataset": ("a.csv", CSV, rows_of_pairs),
    "prompts": ("a.txt", TEXT, _lines),
    "tokenizer": ("a.json", MODEL, tokenizer),
}


@pytest.mark.parametrize("name", READERS)
def test_a_byte_order_mark_is_no_text(name: str, tmp_path: Path) -> None:
    file, content, reader = READERS[name]
    found = []
    for mark in (b"", codecs.BOM_UTF8):
        directory = tmp_path / f"marked{bool(mark)}"
        directory.mkdir()
        (directory / file).write_bytes(mark + content.encode())
        found.append(reader(directory / file))
    assert found[0] == found[1]
    assert found[0]
    assert "\ufeff" not in str(found)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("name", [name for name in READERS if "dataset" not in name and "rows" not in name])
def test_another_encoding_is_named(name: str, encoding: str, tmp_path: Path) -> None:
    file, content, reader = READERS[name]
    (tmp_path / file).write_bytes(content.encode(encoding))
    with pytest.raises(
        DataError, match=rf"{Path(file).suffix} is {encoding[:6].upper()}, not UTF-8: convert the file"
    ) as caught:
        reader(tmp_path / file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_values_that_begin_with_a_mark_lose_it(kind: str, tmp_path: Path) -> None:
    import pandas
    from datasets import Dataset, DatasetDict

    rows = pandas.DataFrame([{"text": f"\ufeff{row['text']}", "label": f"\ufeff{row['label']}"} for row in ROWS])
    if kind == "parquet":
        rows.to_parquet(tmp_path / "a.parquet")
        found = table(tmp_path / "a.parquet")
    else:
        DatasetDict(train=Dataset.from_pandas(rows)).save_to_disk(str(tmp_path / "saved"))
        saved = str(tmp_path / "saved")
        found = read_tables(
            LabelledTextSource(files=None, dataset=saved, dataset_config=None, column_names=None, **COLUMNS)
        )
    assert list(found["train"]) == [(row["text"], row["label"]) for row in ROWS]
