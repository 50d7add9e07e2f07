"""The files that show attention maps: pictures that can be read, and a page that asks for nothing."""

from pathlib import Path

import numpy as np
import pytest

from tests.inspection.maps import NASTY, attention_map, axis, influence
from xformer.errors import DataError
from xformer.inspection.attention_files import write_attention_maps


def test_the_numbers_are_the_maps(tmp_path: Path) -> None:
    maps = [attention_map(4, 4, layer=layer) for layer in range(2)]
    *_, archive = write_attention_maps(tmp_path, "", "", maps, {"attention": (axis(4), axis(4))})
    with np.load(archive) as found:
        parts = ("constant", "error", "keys", "layers", "queries")
        assert sorted(found) == ["attention", *(f"attention.{part}" for part in parts)]
        assert found["attention.layers"].tolist() == [0, 1]
        assert found["attention.error"].tolist() == [each.error for each in maps]
        assert found["attention"].shape == (2, 3, 4, 4)
        np.testing.assert_array_equal(found["attention"][1], maps[1].weights[0].numpy())
        assert found["attention.keys"].tolist() == NASTY[:4]


def test_influence_has_names_of_its_own_and_is_none_of_the_weights(tmp_path: Path) -> None:
    maps = [attention_map(4, 4), influence(4, layer=1), influence(4, layer=2, slot="decoder_attention")]
    axes = dict.fromkeys(("attention", "decoder_attention"), (axis(4), axis(4)))
    *files, archive = write_attention_maps(tmp_path, "", "", maps, axes)
    assert len(files) == 1 + len(maps)
    with np.load(archive) as found:
        assert (found["attention"].shape, found["attention.layers"].tolist()) == ((1, 3, 4, 4), [0])
        assert found["attention.influence.layers"].tolist() == [1]
        assert found["attention.influence.error"].tolist() == [0.02]
        np.testing.assert_array_equal(found["attention.influence"][0], maps[1].influence[0, 0].numpy())
        assert {name for name in found if name.startswith("decoder")} == {
            f"decoder_attention.{part}"
            for part in ("influence", "influence.layers", "influence.error", "keys", "queries")
        }


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written to.*--output"):
        write_attention_maps(tmp_path / "file", "", "", [attention_map(2, 2)], {"attention": (axis(2), axis(2))})
