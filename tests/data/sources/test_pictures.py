"""Pictures from folders and datasets as Pillow reads them, and every kind of bad input in one sentence."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Value
from PIL import Image

from tests.data.drawn import picture, saved, write
from xformer.data.sources import pictures
from xformer.data.sources.pictures import Pictures
from xformer.errors import DataError


def read(
    folder: Path | None = None, dataset: Path | None = None, image_column: str = "img", label_column: str = "label"
) -> tuple[list[str], dict[str, Pictures]]:
    folder, dataset = (None if place is None else str(place) for place in (folder, dataset))
    columns = {"image_column": image_column, "label_column": label_column}
    return pictures.read_images(pictures.ImageSource(folder=folder, dataset=dataset, dataset_config=None, **columns))


def everything(**source: Any) -> list[Image.Image]:
    return [part.image(index) for part in read(**source)[1].values() for index in range(len(part))]


def refused(**source: Any) -> str:
    with pytest.raises(DataError) as caught:
        everything(**source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_default_is_the_digits_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    levels, digits = load_digits(return_X_y=True)
    classes, found = read()
    assert (classes, list(found)) == (list("0123456789"), ["train"])
    np.testing.assert_array_equal(found["train"].labels, digits)
    for index in range(0, len(digits), 100):
        decoded = np.asarray(found["train"].image(index)).reshape(-1)
        np.testing.assert_allclose(decoded / 255, levels[index] / 16, atol=0.5 / 255)


def test_a_folder_is_its_files_by_class_and_split(tmp_path: Path) -> None:
    for first, part in ((0, "train/b"), (20, "train/a/more"), (40, "test/b")):
        write(tmp_path / part, 3, first)
    classes, found = read(folder=tmp_path)
    assert classes == ["a", "b"]
    assert {split: part.labels.tolist() for split, part in found.items()} == {
        "train": [0] * 3 + [1] * 3,
        "test": [1] * 3,
    }
    for split, numbers in (("train", [20, 21, 22, 0, 1, 2]), ("test", [40, 41, 42])):
        for index, number in enumerate(numbers):
            np.testing.assert_array_equal(np.asarray(found[split].image(index)), np.asarray(picture(number)))
    assert found["test"].name(1) == str(tmp_path / "test" / "b" / "041.png")


def test_a_picture_stored_sideways_is_turned(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, 1)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by 90 degrees, clockwise
    picture(9, (4, 6)).save(tmp_path / "a" / "sideways.png", exif=turned)
    found = read(folder=tmp_path)[1]["train"].image(1)
    np.testing.assert_array_equal(np.asarray(found), np.rot90(np.asarray(picture(9, (4, 6))), -1))


def test_a_folder_is_another_once_a_file_changes(folder: Path) -> None:
    def identity() -> str:
        return read(folder=folder)[1]["train"].identity

    first = identity()
    assert identity() == first
    write(folder / "cat", 1, 77)
    second = identity()
    picture(78, (9, 9)).save(folder / "cat" / "077.png")
    assert len({first, second, identity()}) == 3


@pytest.mark.parametrize("labels", ["names", "numbers", "words"])
def test_a_dataset_on_disk(tmp_path: Path, labels: str) -> None:
    path = saved(tmp_path / "set", train=[0, 1] * 10, test=[1, 0])
    if labels != "names":
        loaded = DatasetDict.load_from_disk(str(path))
        kind, word = (Value("int64"), {0: 7, 1: 9}) if labels == "numbers" else (Value("string"), {0: "n", 1: "y"})
        parts = {
            name: part.remove_columns("label").add_column(
                "label", [word[label] for label in part["label"]], feature=kind
            )
            for name, part in loaded.items()
        }
        DatasetDict(parts).save_to_disk(str(path := tmp_path / "other"))
    classes, found = read(dataset=path)
    assert classes == {"names": ["no", "yes"], "numbers": ["7", "9"], "words": ["n", "y"]}[labels]
    assert {split: part.labels.tolist() for split, part in found.items()} == {"train": [0, 1] * 10, "test": [1, 0]}
    for index in (0, 1):
        np.testing.assert_array_equal(np.asarray(found["test"].image(index)), np.asarray(picture(index)))


def test_an_image_that_does_not_decode_is_named(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "cat" / "003.png").read_bytes()
    for content, reason in ((b"no image", "no known format"), (whole[:60], "")):
        (folder / "cat" / "003.png").write_bytes(content)
        assert re.search(rf"cat/003\.png does not decode as an image \(.*{reason}", refused(folder=folder))
    path = saved(tmp_path / "set", train=[0, 1] * 5)
    broken = Dataset.from_dict(
        {"img": [{"bytes": b"x", "path": None}] * 10, "label": [0, 1] * 5},
        features=DatasetDict.load_from_disk(str(path))["train"].features,
    )
    DatasetDict(train=broken).save_to_disk(str(tmp_path / "broken"))
    words = refused(dataset=tmp_path / "broken")
    assert re.match(r"Row 0 of the train split of data\.source\.dataset=\S+ does not decode as an image", words)


def test_pixels_that_are_not_bytes_are_named(folder: Path) -> None:
    Image.fromarray(np.full((6, 6), 5.0, dtype=np.float32)).save(folder / "dog" / "deep.tiff")
    assert "deep.tiff has pixels of mode F, not of 8 bits" in refused(folder=folder)


def test_a_label_outside_of_the_classes_is_named(tmp_path: Path) -> None:
    for part in ("train/a", "train/b", "test/c"):
        write(tmp_path / "set" / part, 5)
    words = refused(folder=tmp_path / "set")
    assert "test/c is a label outside of the training images' classes (a, b)" in words
    words = refused(dataset=saved(tmp_path / "hidden", train=[0, 1] * 5, test=[-1, -1]))
    assert "Row 0 of the test split of" in words
    assert "has the label -1, which is outside of the classes (0, 1)" in words


def test_a_source_without_images_or_classes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is not a directory" in refused(folder=tmp_path / "nowhere")
    write(tmp_path / "flat", 3)
    assert "has 0 class folders" in refused(folder=tmp_path / "flat")
    (tmp_path / "hollow" / "a").mkdir(parents=True)
    (tmp_path / "hollow" / "b").mkdir()
    assert "holds no image" in refused(folder=tmp_path / "hollow")
    path = saved(tmp_path / "set", train=[0, 1] * 5)
    train = DatasetDict.load_from_disk(str(path))["train"]
    monkeypatch.setattr(pictures, "load_dataset_splits", lambda *_, **__: {"train": train, "test": train.select([])})
    assert "The test split of" in refused(dataset=path)
    monkeypatch.undo()
    assert "data.source.image_column=image is not in" in refused(dataset=path, image_column="image")
    assert "data.source.label_column=kind is not in" in refused(dataset=path, label_column="kind")
    assert "data.source.image_column=label of" in refused(dataset=path, image_column="label")


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "__MACOSX", "@eaDir", ".Trashes"])
@pytest.mark.parametrize("where", ["", "cat", "cat/more"])
def test_what_a_person_did_not_put_there_is_no_class_and_no_image(name: str, where: str, folder: Path) -> None:
    write(folder / "cat" / "more", 2, 60)
    _, plain = read(folder=folder)
    for copy in sorted((folder / "cat").glob("*.png")):
        target = folder / where / name / "cat" / copy.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(copy.read_bytes())
    for junk in ("Thumbs.db", "desktop.ini", ".DS_Store", "._000.png"):
        (folder / where / junk).write_bytes(b"no image")
    classes, found = read(folder=folder)
    assert classes == ["cat", "dog"]
    assert list(found) == list(plain) == ["train"]
    assert len(found["train"]) == 22
    assert found["train"].identity == plain["train"].identity


@pytest.mark.parametrize("part", ["", "train"])
def test_a_class_without_an_image_is_named(part: str, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write(tmp_path / "set" / part / name, 5)
    for name in ("bird", "fish/.hidden"):
        (tmp_path / "set" / part / name).mkdir(parents=True)
    words = refused(folder=tmp_path / "set")
    assert f"{tmp_path / 'set' / part / 'bird'} holds no image" in words
    assert "remove the folders of bird, fish" in words
