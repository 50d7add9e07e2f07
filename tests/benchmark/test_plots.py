"""Pictures hold the rows: a line with all of a variant's points, a bar with its length."""

from pathlib import Path

import pytest
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from xformer.benchmark import plots


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures, as they are saved."""
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (figures.append(figure), save(figure, *a, **k)))
    return figures


def test_each_variant_is_a_line_over_lengths_in_its_panel(drawn: list[Figure], tmp_path: Path) -> None:
    rows = [
        {"length": length, "ms": length * slope, "variant": variant, "form": form}
        for form in ("causal", "bidirectional")
        for variant, slope in (("full", 2.0), ("local", 1.0))
        for length in (64, 16, 256)  # in any order
        if (form, variant) != ("causal", "local")
    ]
    names = {"bidirectional": "both ways", "causal": "left to right", "cross": "never measured"}
    about = {"x": "length", "y": "ms", "panel": "form", "names": names, "label": "milliseconds"}
    plots.plot_by_length(rows, tmp_path / "lines.png", **about)
    assert (tmp_path / "lines.png").stat().st_size
    panels = {axis.get_title(): axis for axis in drawn[0].axes}
    assert [*panels] == ["both ways", "left to right"]
    for title, variants in {"both ways": {"full": 2.0, "local": 1.0}, "left to right": {"full": 2.0}}.items():
        lines = {str(line.get_label()): line.get_xydata().tolist() for line in panels[title].lines}
        assert lines == {name: [[x, x * slope] for x in (16, 64, 256)] for name, slope in variants.items()}
        assert (panels[title].get_xscale(), panels[title].get_yscale()) == ("log", "log")
    (legend,) = (axis.get_legend() for axis in drawn[0].axes if axis.get_legend())
    assert [text.get_text() for text in legend.get_texts()] == ["full", "local"]


@pytest.mark.parametrize("panel", [None, "batch"])
def test_each_row_is_a_bar_as_long_as_its_value(panel: str | None, drawn: list[Figure], tmp_path: Path) -> None:
    rows = [{"what": f"{what} {batch}", "speed": value, "batch": batch} for what, batch, value in
            (("a", 1, 0.5), ("b", 1, 1234.0), ("a", 8, 2.0))]  # fmt: skip
    plots.plot_bars(rows, tmp_path / "bars.png", name="what", value="speed", label="speed", panel=panel, line=1.0)
    assert (tmp_path / "bars.png").stat().st_size
    expected = [rows] if panel is None else [rows[:2], rows[2:]]
    assert len(drawn[0].axes) == len(expected)
    for axis, own in zip(drawn[0].axes, expected, strict=True):
        (bars,) = (each for each in axis.containers if isinstance(each, BarContainer))
        assert [bar.get_width() for bar in bars] == [row["speed"] for row in own]
        assert [label.get_text() for label in axis.get_yticklabels()] == [row["what"] for row in own]
        assert axis.lines[0].get_xdata() == [1.0, 1.0]
    assert {"1,234", "0.5"} <= {text.get_text() for axis in drawn[0].axes for text in axis.texts}
