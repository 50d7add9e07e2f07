"""The page: it asks for nothing, shows every token as it is, and says what a map does not do."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.inspection.maps import NASTY, attention_map, axis, influence
from xformer.inspection.attention_files import write_attention_maps
from xformer.inspection.attention_maps import EXACT, LayerMap, Linearity
from xformer.inspection.attention_page import format_percent
from xformer.inspection.model_input import Axis


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
    files = write_attention_maps(tmp_path / "new" / "maps", "Maps of <run>", "</pre><b>typed", maps, axes)
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


@pytest.mark.parametrize(
    ("error", "said"),
    [(2e-7, "2e-05 %"), (9e-4, "0.09 %"), (0.02, "2 %"), (3.192, "319 %"), (math.inf, "inf %")],
)
def test_how_far_the_weights_are_from_the_output_stands_on_the_page(error: float, said: str, tmp_path: Path) -> None:
    assert format_percent(error) == said
    layers = [replace(attention_map(4, 4), error=min(error, EXACT)), influence(4, layer=1, weights_error=error)]
    text = page_of(layers, tmp_path)
    assert f"weights times values differ from the output by {format_percent(min(error, EXACT))}" in text
    assert "attention, layer 1: Mamba2 is not linear in the values" in text
    assert f"weights times values differ from its output by {said}" in text


def test_a_constant_beside_the_weights_is_said(tmp_path: Path) -> None:
    plain, shifted = attention_map(4, 4), replace(attention_map(4, 4, layer=1), constant=0.25)
    assert [each.linearity for each in (plain, shifted)] == [Linearity.WEIGHTS, Linearity.CONSTANT]
    assert "constant" not in page_of([plain], tmp_path)
    assert "after adding a constant of 25 % of it, which does not depend" in page_of([plain, shifted], tmp_path)


def test_influence_is_never_called_weights(tmp_path: Path) -> None:
    alone = page_of([influence(4), influence(4, layer=2)], tmp_path)
    assert "attention, layers 0, 2: Mamba2 owns its projections and state" in alone
    assert "The map shows influence, not weights." in alone
    assert alone.count("influence, not weights; measured with random probes, standard error 2 % of the map") == 2
    assert "weights times values" not in alone
    assert "entropy by head" not in alone
    beside = page_of([attention_map(4, 4), influence(4, layer=1)], tmp_path)
    for words in ("Rows are queries", "rows are outputs t", "layer 0, 3 heads; entropy by head"):
        assert words in beside
    assert "nfluence, not weights:" not in page_of([attention_map(4, 4)], tmp_path)


def page_of(maps: Sequence[LayerMap], directory: Path) -> str:
    index, *_ = write_attention_maps(directory, "", "", maps, {"attention": (axis(4), axis(4))})
    return " ".join(index.read_text(encoding="utf-8").split())
