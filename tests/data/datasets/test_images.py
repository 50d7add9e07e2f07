"""Images against Pillow and NumPy, sources on disk, and every kind of bad input in one sentence."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.data.drawn import picture, saved, write
from xformer.data.batch import ImageBatch
from xformer.errors import ConfigError, DataError

Ready = Any


def everything(module: Any, split: str) -> ImageBatch:
    batch: ImageBatch = module.splits[split].__getitems__(range(len(module.splits[split])))
    return batch


def bytes_of(batch: ImageBatch) -> NDArray[np.uint8]:
    return (batch.images * 255).round().to(torch.uint8).numpy()


def test_the_default_is_the_digits_with_the_split_of_the_sequences(ready: Ready) -> None:
    module, sequences = ready("images"), ready("digits")
    for name, split in module.splits.items():
        batch = everything(module, name)
        assert batch.images.shape == (len(split), 1, 8, 8)
        assert batch.images.dtype == torch.float32
        levels = (batch.images * 16).round().long().flatten(1).numpy()
        np.testing.assert_array_equal(levels, sequences.splits[name].pixels)
        np.testing.assert_array_equal(batch.labels.numpy(), sequences.splits[name].labels)
    assert module.describe() == "Images (scikit-learn's digits): 1,258/180/359 images of 8 x 8 pixels, grey, 10 classes"
    assert module.trivial_baselines == sequences.trivial_baselines


def test_a_folder_of_classes_is_read_as_pillow_reads_it(ready: Ready, folder: Path) -> None:
    module = ready("images", folder=str(folder), channels=3, batch_size=4)
    assert module.classes == ["cat", "dog"]
    assert [len(module.splits[name]) for name in ("train", "val", "test")] == [14, 2, 4]
    expected = {
        np.asarray(Image.open(path)).transpose(2, 0, 1).tobytes(): path.parent.name for path in folder.rglob("*.png")
    }
    found = {}
    for name in module.splits:
        batch = everything(module, name)
        for values, label in zip(bytes_of(batch), batch.labels, strict=True):
            found[values.tobytes()] = module.classes[label]
    assert found == expected  # every image once, with its class


def test_splits_of_the_folder_are_kept_and_the_rest_is_held_out(ready: Ready, tmp_path: Path) -> None:
    for first, part in ((0, "train/a"), (20, "train/b"), (40, "test/b")):
        write(tmp_path / part, 10, first)
    module = ready("images", folder=str(tmp_path), channels=3, batch_size=4)
    assert [len(module.splits[name]) for name in ("train", "val", "test")] == [18, 2, 10]
    assert everything(module, "test").labels.tolist() == [1] * 10
    own = {np.asarray(picture(number)).transpose(2, 0, 1).tobytes() for number in range(40, 50)}
    assert {values.tobytes() for values in bytes_of(everything(module, "test"))} == own


def test_the_normalisation_is_that_of_the_training_images_alone(ready: Ready, folder: Path) -> None:
    module = ready("images", folder=str(folder), channels=3, batch_size=4)
    train = everything(module, "train").images.double()
    np.testing.assert_allclose(module.spec.image.mean, train.mean((0, 2, 3)), atol=1e-7)
    np.testing.assert_allclose(module.spec.image.std, train.std((0, 2, 3), correction=0), atol=1e-7)
    given = ready("images", folder=str(folder), channels=3, mean=[0.5, 0.4, 0.3], std=[1.0, 2.0, 3.0], batch_size=4)
    assert (given.spec.image.mean, given.spec.image.std) == ([0.5, 0.4, 0.3], [1.0, 2.0, 3.0])


def test_images_are_resized_and_made_grey_by_pillow(ready: Ready, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, 10, size=(12, 8))
    module = ready("images", folder=str(tmp_path), image_size=4, batch_size=4)
    assert (module.spec.image.channels, module.spec.image.height, module.spec.image.width) == (1, 4, 4)
    middle = (2, 0, 10, 8)
    expected = {
        np.asarray(picture(number, (12, 8)).convert("L").resize((4, 4), Image.Resampling.BICUBIC, box=middle)).tobytes()
        for number in range(10)
    }
    assert {values.tobytes() for name in module.splits for values in bytes_of(everything(module, name))} == expected


def test_decoded_images_are_kept_until_a_file_changes(
    ready: Ready, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"folder": str(folder), "channels": 3, "batch_size": 4}
    first = ready("images", **options)
    with monkeypatch.context() as patched:
        patched.setattr("xformer.data.sources.pictures._decode", lambda *_: pytest.fail("decoded again"))
        assert ready("images", **options).fingerprint == first.fingerprint
    write(folder / "cat", 1, 77)
    assert ready("images", **options).fingerprint != first.fingerprint
    assert ready("images", **options, split={"seed": 1}).fingerprint != first.fingerprint


def test_images_are_mapped_and_not_held_in_memory(ready: Ready) -> None:
    split = ready("images").splits["train"]
    assert isinstance(split.pixels.array, np.memmap)


def test_what_a_run_keeps_of_images_is_read_back(ready: Ready, tmp_path: Path) -> None:
    module = ready("images")
    module.save(tmp_path)
    spec, module.spec = module.spec, None
    module.restore(tmp_path)
    assert module.spec == spec


def test_the_spec_name_and_count_the_classes(ready: Ready, folder: Path) -> None:
    write(folder / "dog", 10, 60)
    module = ready("images", channels=3, folder=str(folder), test_fraction=0.2, batch_size=4)
    labels = everything(module, "train").labels.tolist()
    assert module.spec.class_names == ["cat", "dog"]
    assert module.spec.class_counts == [labels.count(0), labels.count(1)]


def test_the_preset_reads_a_local_dataset(ready: Ready, tmp_path: Path) -> None:
    path = saved(tmp_path / "set", train=[0, 1] * 10, test=[1, 0])
    module = ready("cifar10", dataset=str(path), batch_size=4)
    assert module.classes == ["no", "yes"]
    assert [len(module.splits[name]) for name in ("train", "val", "test")] == [18, 2, 2]
    batch = next(iter(module.test_dataloader()))
    assert type(batch) is module.yields
    assert batch.images.shape == (2, 3, 6, 6)
    assert batch.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(bytes_of(batch)[0], np.asarray(picture(0)).transpose(2, 0, 1))


def refused(ready: Ready, error: type[Exception] = DataError, **options: Any) -> str:
    with pytest.raises(error) as caught:
        ready("images", **{"channels": 3, "batch_size": 2, **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_image_that_does_not_decode_is_named(ready: Ready, folder: Path, tmp_path: Path) -> None:
    whole = (folder / "cat" / "003.png").read_bytes()
    for content, reason in ((b"no image", "no known format"), (whole[:60], "")):
        (folder / "cat" / "003.png").write_bytes(content)
        assert re.search(rf"cat/003\.png does not decode as an image \(.*{reason}", refused(ready, folder=str(folder)))
    assert not list((tmp_path / "cache").glob("*"))  # nothing half built is left


def test_images_that_stand_in_two_splits_are_told(ready: Ready, tmp_path: Path) -> None:
    for part, first in (("train", 0), ("val", 20), ("test", 40)):
        for name, offset in (("a", 0), ("b", 10)):
            write(tmp_path / "set" / part / name, 5, first + offset)
    module = ready("images", folder=str(tmp_path / "set"))
    assert "too" not in module.describe()
    (tmp_path / "set" / "test" / "a" / "again.png").write_bytes((tmp_path / "set/train/a/000.png").read_bytes())
    picture(21).save(tmp_path / "set" / "test" / "b" / "other.png", compress_level=1)  # other bytes, equal pixels
    module = ready("images", folder=str(tmp_path / "set"))
    assert module.describe().endswith("; 2 images of test stand in a split before it too")


def test_images_of_different_sizes_want_a_size(ready: Ready, folder: Path) -> None:
    write(folder / "dog", 1, 99, size=(9, 7))
    assert "pixels and others have" in (words := refused(ready, folder=str(folder)))
    assert "data.image_size=" in words


@pytest.mark.parametrize(
    "options",
    [
        {"source.folder": "a", "source.dataset": "b"},
        {"mean": [0.5, 0.5, 0.5]},
        {"mean": [0.5], "std": [0.5]},
    ],
)
def test_impossible_options_are_refused_before_anything_is_read(ready: Ready, options: dict[str, Any]) -> None:
    words = refused(ready, ConfigError, **{key.removeprefix("source."): value for key, value in options.items()})
    assert all(f"data.{key}=" in words for key in options)


def test_nothing_is_held_out_to_validate_on_only_where_the_source_has_a_split(
    ready: Ready, folder: Path, tmp_path: Path
) -> None:
    assert "data.split.val_fraction=0.0" in refused(ready, ConfigError, folder=str(folder), val_fraction=0.0)
    path = saved(tmp_path / "set", train=[0, 1] * 5, validation=[1, 0])
    module = ready("images", dataset=str(path), image_column="img", val_fraction=0.0, test_fraction=0.0, batch_size=2)
    assert {name: len(split) for name, split in module.splits.items()} == {"train": 10, "val": 2}


def test_too_few_images_for_a_split(ready: Ready, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, 1)
    assert "images leave none for" in refused(ready, ConfigError, folder=str(tmp_path))
