"""The files that show attention maps: pictures that can be read, and a page that asks for nothing."""

import itertools
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from xformer.errors import DataError
from xformer.inspection.attention_files import write
from xformer.inspection.attention_maps import EXACT, AttentionMap
from xformer.inspection.draw_attention import Scale, draw
from xformer.inspection.reading import Axis

NASTY = ["<script>alert(1)</script>", "$x$", "$", "_{", "漢", "a\\b", "&amp;", '"']


def attention_map(queries: int, keys: int, heads: int = 3, layer: int = 0, slot: str = "attention") -> AttentionMap:
    generator = torch.Generator().manual_seed(layer)
    scores = 3 * torch.randn(1, heads, queries, keys, generator=generator)
    return AttentionMap(slot, layer, "Full", scores.softmax(-1))


def axis(length: int) -> Axis:
    return Axis("input", [NASTY[index % len(NASTY)] for index in range(length)])


class References(HTMLParser):
    """What a page loads or links to, and the text of it."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.found: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        loading = {"src", "href", "srcset", "data", "action", "poster", "background"}
        self.found += [value or "" for name, value in attributes if name in loading]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_asks_for_nothing(tmp_path: Path) -> None:
    maps = [attention_map(4, 4, layer=layer) for layer in range(2)] + [attention_map(3, 8, slot="cross_attention")]
    axes = {"attention": (axis(4), axis(4)), "cross_attention": (Axis("token written", ["x", "y", "z"]), axis(8))}
    files = write(tmp_path / "new" / "maps", "Maps of <run>", "</pre><b>typed", maps, axes)
    assert [file.name for file in files] == [
        "index.html",
        "attention-layer-0.png",
        "attention-layer-1.png",
        "cross_attention-layer-0.png",
        "maps.npz",
    ]
    content = files[0].read_text(encoding="utf-8")
    page = References()
    page.feed(content)
    assert len(page.found) == len(maps)
    assert all(reference.startswith("data:image/png;base64,") for reference in page.found)
    assert not {"script", "link", "b", "run", "iframe"} & {*page.tags}
    assert not re.search(r"https?:|url\(|@import|//", re.sub(r"base64,[^\"]*", "", content))
    for token in [*NASTY, "Maps of <run>", "</pre><b>typed"]:
        assert token in page.text
    assert "width=device-width" in content


def test_the_numbers_are_the_maps(tmp_path: Path) -> None:
    maps = [attention_map(4, 4, layer=layer) for layer in range(2)]
    *_, archive = write(tmp_path, "", "", maps, {"attention": (axis(4), axis(4))})
    with np.load(archive) as found:
        assert sorted(found) == ["attention", "attention.error", "attention.keys", "attention.queries"]
        assert found["attention.error"].tolist() == [each.error for each in maps]
        assert found["attention"].shape == (2, 3, 4, 4)
        np.testing.assert_array_equal(found["attention"][1], maps[1].weights[0].numpy())
        assert found["attention.keys"].tolist() == NASTY[:4]


@pytest.mark.parametrize(
    ("error", "said"),
    [(2e-7, "2e-05 %"), (9e-4, "0.09 %"), (0.02, "2 %"), (3.192, "319 %"), (math.inf, "more than can be told")],
)
def test_how_far_the_weights_are_from_the_output_stands_on_the_page(error: float, said: str, tmp_path: Path) -> None:
    layers = [attention_map(4, 4), replace(attention_map(4, 4, layer=1), error=error)]
    index, *_, archive = write(tmp_path, "", "", layers, {"attention": (axis(4), axis(4))})
    text = " ".join(index.read_text(encoding="utf-8").split())
    assert f"weights times values are off by {said} of the output" in text
    wrong = f"attention, layer 1: Full is not weights times values, which are off by {said} of its output here"
    assert (wrong in text) == (error > EXACT)
    assert "attention, layer 0: Full is not" not in text
    assert "exact" not in text
    with np.load(archive) as found:
        assert found["attention.error"].tolist() == [0.0, error]


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written to.*--output"):
        write(tmp_path / "file", "", "", [attention_map(2, 2)], {"attention": (axis(2), axis(2))})


@pytest.mark.parametrize(("queries", "keys", "heads"), [(1, 1, 1), (9, 9, 4), (3, 40, 2), (41, 41, 1), (400, 400, 1)])
@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")  # by measuring again here
def test_labels_do_not_overlap(queries: int, keys: int, heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (figures.append(figure), save(figure, *a, **k)))
    layer = attention_map(queries, keys, heads)
    draw(layer, axis(queries), axis(keys), Scale([layer]))
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
        file.write_bytes(draw(attention, Axis("input", [""] * 4), Axis("input", [""] * 4), scale))
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
