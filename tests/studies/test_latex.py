"""The LaTeX table: it is well formed, has the numbers of the comparison, and fits a column of a paper."""

import re
from pathlib import Path

import pytest
from matplotlib import get_data_path
from matplotlib.ft2font import FT2Font

from tests.studies.conftest import MakeRun
from xformer.errors import ConfigError
from xformer.runs.recorded_run import load_runs
from xformer.studies.comparison import Comparison, compare
from xformer.studies.latex import COLUMN_POINTS, COLUMNS, as_latex, table_points
from xformer.studies.output_formats import format_comparisons
from xformer.studies.study import Study

STUDIES = ("extrapolation", "listops_attentions", "norm_warmup", "retrieval_rank", "transduction_positions")


def of_study(name: str) -> Comparison:
    study = Study.of(name)
    return compare(study.committed(), study.metric, study.baseline)


def parsed(text: str) -> tuple[str, list[str], list[list[str]], str]:
    """The environment of a table, its titles, its cells and its caption, by the grammar that LaTeX has for it."""
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{([^}]*)\}", code):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert stack == []
    plain = re.sub(r"\\[{}$&%#_\\]", "", code)
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    found = re.search(
        r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}\n\\toprule\n(.*?)\\midrule\n(.*?)\\bottomrule", code, re.DOTALL
    )
    assert found
    aligned, head, body = found.groups()
    rows = [re.split(r"(?<!\\)&", row) for row in (head + body).replace("\n", "").split(r"\\") if row.strip()]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert {len(row) for row in cells} == {len(aligned)}
    caption = re.search(r"\\caption\{(.*)\}\n", code)
    environment = re.search(r"\\begin\{(table\*?)\}\[t\]", code)
    assert caption
    assert environment
    return environment[1], cells[0], cells[1:], caption[1]


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_s_table_has_its_numbers(study: str) -> None:
    found = of_study(study)
    _, titles, rows, caption = parsed(as_latex(found))
    names = len(found.differ.named)
    assert len(titles) == names + 2
    assert len(rows) == len(found.rows)
    for row, cells in zip(found.rows, rows, strict=True):
        number = re.search(r"\d+\.(\d+)", cells[names])
        assert number
        assert float(number[0]) == pytest.approx(row.mean, abs=0.51 * 10.0 ** -len(number[1]))
        assert ("^{*}" in cells[names + 1]) == (row.verdict in ("better", "worse"))
        if row.difference is None:
            assert cells[names + 1] == "--"
    bold = [row for row, cells in zip(found.rows, rows, strict=True) if r"\mathbf" in cells[names]]
    others = {key for key in found.differ.named if f" {key}=" not in f" {found.baseline}"}
    best: dict[tuple[str, ...], list[float]] = {}
    for row in found.rows:
        best.setdefault(tuple(row.group.get(key) for key in sorted(others)), []).append(row.mean)
    pick = max if found.metric.mode == "max" else min
    assert sorted(row.mean for row in bold) == sorted(pick(means) for means in best.values())
    assert str(len(found.rows[0].values)) in caption
    assert found.metric.name.replace("_", r"\_") in caption


def test_an_interval_is_written_as_it_is(sweep: Path) -> None:
    found = compare(load_runs([sweep]), "test/loss")
    for row, cells in zip(found.rows, parsed(as_latex(found, ["mean", "interval"]))[2], strict=True):
        assert row.interval is not None
        numbers = [float(text) for text in re.findall(r"\d+\.\d+", cells[1])]
        last = 10.0 ** -len(re.findall(r"\.(\d+)", cells[1])[0])
        mean, above, below = numbers if len(numbers) == 3 else (*numbers, numbers[1])
        assert [mean - below, mean + above] == pytest.approx([row.interval.low, row.interval.high], abs=2.1 * last)
        assert (r"\pm" in cells[1]) == (len(numbers) == 2)
        low, high = (float(text) for text in re.findall(r"-?\d+\.\d+", cells[2]))
        assert [low, high] == pytest.approx([row.interval.low, row.interval.high], abs=0.51 * last)


@pytest.mark.parametrize("study", STUDIES)
def test_the_default_table_fits_a_column(study: str) -> None:
    """By the widths of Computer Modern's own letters, at 9 points, with LaTeX's rule for scripts (6 points of 9)."""
    environment, titles, rows, _ = parsed(as_latex(of_study(study)))
    fonts = Path(get_data_path(), "fonts", "ttf")
    font = FT2Font(str(fonts / "cmr10.ttf"))

    def points(text: str, size: float) -> float:
        font.set_size(size, 72)
        font.set_text(text, 0.0)
        return float(font.get_width_height()[0]) / 64

    def width(cell: str) -> float:
        cell = re.sub(r"\\mathbf\{(.*)\}\$$", r"\1$", cell).replace(r"\_", "_").replace("$", "")
        scripts = re.findall(r"[\^_]\{([^{}]*)\}", cell)
        rest = re.sub(r"[\^_]\{[^{}]*\}", "", cell).replace(r"\pm", "+").replace("{", "").replace("}", "")
        return points(rest, 9) * 1.08 + max([points(script, 6) for script in scripts], default=0.0)

    real = sum(max(map(width, column)) for column in zip(titles, *rows, strict=True)) + 8 * (len(titles) - 1)
    assert table_points(titles, rows) == pytest.approx(real, rel=0.2)
    assert (environment == "table") == (table_points(titles, rows) <= COLUMN_POINTS)
    assert real <= COLUMN_POINTS * (1.1 if environment == "table" else 3)
    if len(titles) == 3:
        assert environment == "table"


def test_columns_are_those_that_are_chosen(sweep: Path) -> None:
    found = compare(load_runs([sweep]))
    wanted = [*reversed(COLUMNS)]
    environment, titles, rows, _ = parsed(as_latex(found, wanted))
    assert environment == "table*"
    assert [len(row) for row in rows] == [1 + len(COLUMNS)] * 3
    assert titles[-1] == "seeds"
    assert format_comparisons("latex", [found], wanted) == as_latex(found, wanted)
    with pytest.raises(ConfigError, match=r"--columns mode is not a column; choose of seeds, mean, "):
        as_latex(found, ["mode"])
    with pytest.raises(ConfigError, match="add --format latex"):
        format_comparisons("csv", [found], wanted)


def test_characters_that_latex_reads_are_escaped(make_run: MakeRun, tmp_path: Path) -> None:
    for name in ("a_b&c", "50 % {x} $ # ~^\\"):
        make_run(0.5, seed=0, attention=name, config={"attention": {"_target_": "x", "note": name}})
    _, _, rows, _ = parsed(as_latex(compare(load_runs([tmp_path / "sweep"]))))
    assert rows[0][0] == r"a\_b\&c"
    assert rows[1][0] == r"50 \% \{x\} \$ \# \textasciitilde{}\textasciicircum{}\textbackslash{}"
