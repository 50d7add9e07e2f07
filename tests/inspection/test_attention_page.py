"""The page: it asks for nothing, shows every token as it is, and says what a map does not do."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.inspection.maps import NASTY, attention_map, axis
from xformer.inspection.attention_files import write_attention_maps
from xformer.inspection.attention_maps import EXACT
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
    [(2e-7, "2e-05 %"), (9e-4, "0.09 %"), (0.02, "2 %"), (3.192, "319 %"), (math.inf, "more than can be told")],
)
def test_how_far_the_weights_are_from_the_output_stands_on_the_page(error: float, said: str, tmp_path: Path) -> None:
    layers = [attention_map(4, 4), replace(attention_map(4, 4, layer=1), error=error)]
    index, *_, archive = write_attention_maps(tmp_path, "", "", layers, {"attention": (axis(4), axis(4))})
    text = " ".join(index.read_text(encoding="utf-8").split())
    assert f"weights times values are off by {said} of the output" in text
    wrong = f"attention, layer 1: Full is not weights times values, which are off by {said} of its output here"
    assert (wrong in text) == (error > EXACT)
    assert "attention, layer 0: Full is not" not in text
    assert "exact" not in text
    with np.load(archive) as found:
        assert found["attention.error"].tolist() == [0.0, error]
