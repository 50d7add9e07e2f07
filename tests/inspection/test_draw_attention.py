"""The pictures: labels that can be read, and colours that mean the same in all of them."""

import itertools
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from tests.inspection.maps import attention_map, axis, influence
from xformer.inspection.attention_maps import AttentionMap
from xformer.inspection.draw_attention import Scale, draw_attention
from xformer.inspection.model_input import Axis


@pytest.mark.parametrize(("queries", "keys", "heads"), [(1, 1, 1), (9, 9, 4), (3, 40, 2), (41, 41, 1), (400, 400, 1)])
@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")  # by measuring again here
def test_labels_do_not_overlap(queries: int, keys: int, heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (figures.append(figure), save(figure, *a, **k)))
    layer = attention_map(queries, keys, heads)
    draw_attention(layer, axis(queries), axis(keys), Scale([layer]))
    panels = [panel for panel in figures[0].axes if panel.images]
    assert len(panels) == heads
    for panel in panels:
        assert panel.images[0].get_array().shape == (queries, keys)
        for labels, way, count in (
            (panel.get_xticklabels(), "x", keys),
            (panel.get_yticklabels(), "y", queries),
        ):
            assert len(labels) == count or len(labels) >= 20
            boxes = [label.get_window_extent() for label in labels]
            assert all(box.width and box.height for box in boxes)
            ends = sorted((getattr(box, f"{way}0"), getattr(box, f"{way}1")) for box in boxes)
            assert all(end < start for (_, end), (start, _) in itertools.pairwise(ends))


def test_equal_weights_have_equal_colours_in_all_layers_and_heads(tmp_path: Path) -> None:
    """A layer whose largest weight is small stays pale beside one with a weight of 1."""
    even, sure = (
        AttentionMap("attention", 0, "Full", weights[None, None])
        for weights in (torch.full((4, 4), 0.25), torch.eye(4))
    )
    scale = Scale([even, sure])

    def darkest(attention: AttentionMap, scale: Scale) -> float:
        file = tmp_path / "map.png"
        file.write_bytes(draw_attention(attention, Axis("input", [""] * 4), Axis("input", [""] * 4), scale))
        pixels = imread(file)
        middle = pixels[:, : pixels.shape[1] // 2, :3]  # without the colour bar
        blue = middle[(middle[..., 2] - middle[..., 0]) > 0.1]
        return float(blue.sum(-1).min())

    assert darkest(even, scale) > darkest(sure, scale) + 0.5
    assert darkest(even, Scale([even])) == pytest.approx(darkest(sure, scale), abs=0.05)


def test_negative_weights_have_a_scale_with_zero_in_its_middle() -> None:
    signed = AttentionMap("attention", 0, "Linformer", torch.tensor([[[[0.5, -0.2]]]]))
    scale = Scale([attention_map(1, 2), signed])
    top = scale.norm.vmax
    assert top is not None
    assert top >= 0.5
    assert scale.norm(0.0) == pytest.approx(0.5)
    assert scale.norm(-top) == pytest.approx(0.0)
    assert scale.norm(-top / 4) == pytest.approx(0.25)  # the root: half the colour for a quarter of the weight
    assert sorted(scale.ticks) == pytest.approx(
        [
            sign * top * part
            for sign, part in [
                (-1, 1),
                (-1, 9 / 16),
                (-1, 1 / 4),
                (-1, 1 / 16),
                (1, 0),
                (1, 1 / 16),
                (1, 1 / 4),
                (1, 9 / 16),
                (1, 1),
            ]
        ]
    )
    assert Scale([attention_map(1, 2)]).norm(0.0) == pytest.approx(0.0)


def test_influence_is_labelled_in_the_picture_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (figures.append(figure), save(figure, *a, **k)))
    for layer in (influence(5), attention_map(5, 5)):
        draw_attention(layer, Axis("input", ["a"] * 5), Axis("input", ["a"] * 5), Scale([layer]))
    drawn, weights = figures
    assert drawn.get_suptitle() == "attention (Mamba2), layer 0\ninfluence, not weights"
    assert [panel.get_title() for panel in drawn.axes if panel.images] == ["all heads"]
    assert (drawn.get_supxlabel(), drawn.get_supylabel()) == ("input (inputs x)", "input (outputs y)")
    assert drawn.axes[-1].get_ylabel().startswith("influence")
    assert "influence" not in weights.get_suptitle()
