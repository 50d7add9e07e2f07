"""The figures: they show the numbers of the table, nothing twice, and no legend on the data."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.studies.conftest import MakeRun
from xformer.runs.recorded_run import load_runs
from xformer.studies.comparison import compare
from xformer.studies.figure_panels import GROUP, MOST, SEED, looks, panels
from xformer.studies.figure_style import COLOURS, NARROW, PAPER, RECORD, WIDE, PlotStyle
from xformer.studies.figures import figures, pareto_front, write_figures, write_paper_figures
from xformer.studies.scaling_figure import scaling_figure
from xformer.studies.study import Study
from xformer.studies.trivial_lines import trivial_baselines, trivial_lines

STYLES = {"record": RECORD, "wide": WIDE, "narrow": NARROW, **PAPER}
CASES = [
    *((name, "transduction_positions") for name in STYLES),
    ("narrow", "extrapolation"),
    ("column", "recall_pairs"),
]


def lines(axes: Any, kind: str = GROUP) -> list[Any]:
    """The lines of groups, or those of single runs."""
    return [line for line in axes.get_lines() if line.get_gid() == kind]


def of_study(name: str, style: PlotStyle, seeds: bool = False) -> dict[str, Figure]:
    study = Study.of(name)
    return figures(compare(study.committed(), study.metric, study.baseline), style, seeds)


def test_figures_are_drawn_from_what_the_runs_hold(sweep: Path, make_run: MakeRun, tmp_path: Path) -> None:
    found = compare(load_runs([sweep]))
    drawn = figures(found)
    assert set(drawn) == {"curves", "cost"}
    line = drawn["curves"].axes[0].get_lines()[0]
    means = [sum(found.rows[0].values.values()) / 3 * step / 3 for step in (1, 2, 3)]
    assert list(line.get_xdata()) == [1, 2, 3]
    assert list(line.get_ydata()) == pytest.approx(means)
    names = {path.name for path in write_figures(figures(found), tmp_path / "figures")}
    assert names == {"curves.svg", "curves.png", "cost.svg", "cost.png"}


def test_a_metric_by_length_is_a_figure(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(2):
        for name in ("full", "local"):
            lengths = {f"test/accuracy@{n}": 1.0 / n + seed for n in (128, 256)}
            make_run(0.5, seed=seed, attention=name, metrics={"test/accuracy": 0.5, **lengths})
    axes = figures(compare(load_runs([tmp_path / "sweep"])))["length"].axes[0]
    assert list(axes.get_lines()[0].get_xdata()) == [128, 256]
    assert list(axes.get_lines()[0].get_ydata()) == pytest.approx([1 / 128 + 0.5, 1 / 256 + 0.5])


def test_a_metric_by_length_begins_at_the_length_trained_at(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(2):
        further = {"test/accuracy@256": 0.4, "test/accuracy@512": 0.3 + seed, "test/loss@256": 9.0}
        text = {"config": {"data": {"block": 128}}}
        make_run(0.5, seed=seed, metrics={"test/accuracy": 0.5 + 0.2 * seed, **further}, **text)
    axes = figures(compare(load_runs([tmp_path / "sweep"])))["length"].axes[0]
    assert list(axes.get_lines()[0].get_xdata()) == [128, 256, 512]
    assert list(axes.get_lines()[0].get_ydata()) == pytest.approx([0.6, 0.4, 0.8])
    make_run(0.5, seed=0, attention="local", config={"data": {"block": 128}})  # which was tested at no other length
    found = compare(load_runs([tmp_path / "sweep"]))
    assert [len(line.get_xdata()) for line in lines(figures(found)["length"].axes[0])] == [3, 0]


def test_the_intervals_of_the_figures_are_those_of_the_table(make_run: MakeRun, tmp_path: Path) -> None:
    values = [0.5 + 0.01 * seed**2 for seed in range(10)]
    for seed, value in enumerate(values):
        make_run(value, seed=seed)
    found = compare(load_runs([tmp_path / "sweep"]))
    between = found.rows[0].interval
    assert between is not None
    drawn = figures(found)
    (bar,) = drawn["cost"].axes[0].containers[0].lines[2]
    assert bar.get_segments()[0][:, 1].tolist() == pytest.approx([between.low, between.high])
    (shade,) = drawn["curves"].axes[0].collections
    at_the_end = [y for x, y in shade.get_paths()[0].vertices if x == 3]
    assert [min(at_the_end), max(at_the_end)] == pytest.approx([between.low, between.high])


def test_the_front_holds_what_nothing_beats(make_run: MakeRun, tmp_path: Path) -> None:
    for name, value, tokens in [("full", 0.9, 400), ("local", 0.8, 300), ("sparse", 0.7, 350), ("linformer", 0.5, 100)]:
        make_run(value, seed=0, attention=name, tokens_seen=tokens)
    found = compare(load_runs([tmp_path / "sweep"]))
    assert [row.name.partition("=")[2] for row in pareto_front(found.rows, "max", "flops")] == [
        "linformer",
        "local",
        "full",
    ]
    less = compare(load_runs([tmp_path / "sweep"]), "test/loss")
    assert [row.name.partition("=")[2] for row in pareto_front(less.rows, "min", "flops")] == [
        "linformer",
        "local",
        "full",
    ]


def test_the_front_is_of_the_cost_that_is_drawn(make_run: MakeRun, tmp_path: Path) -> None:
    for name, value, flops, seconds in [
        ("full", 0.9, 1e4, 30.0),
        ("local", 0.8, None, 20.0),
        ("sparse", 0.7, 1.0, 10.0),
    ]:
        make_run(value, seed=0, attention=name, flops_per_token=flops, wall_seconds=seconds)
    axes = figures(compare(load_runs([tmp_path / "sweep"])))["cost"].axes[0]
    assert axes.get_xlabel() == "time (s)"
    front = next(line for line in axes.get_lines() if line.get_label() == "Pareto front")
    assert list(front.get_xdata()) == [10.0, 20.0, 30.0]
    assert list(front.get_ydata()) == [0.7, 0.8, 0.9]


def test_seeds_that_give_one_number_are_drawn_without_a_reach(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(3):
        make_run(0.1, seed=seed)  # whose mean is not 0.1 in the last bit
    assert "cost" in figures(compare(load_runs([tmp_path / "sweep"])))


@pytest.mark.parametrize(("style_name", "study"), CASES)
def test_nothing_is_cut_covered_or_twice(style_name: str, study: str) -> None:
    check(of_study(study, STYLES[style_name]), STYLES[style_name])


@pytest.mark.parametrize("style", PAPER.values(), ids=PAPER)
def test_nothing_is_cut_of_a_figure_by_size(style: PlotStyle, size_runs: Path) -> None:
    drawn = figures(compare(load_runs([size_runs]), baseline="attention=full"), style)
    check({"scaling": drawn["scaling"]}, style)


def check(drawn: dict[str, Figure], style: PlotStyle) -> None:
    """The legend and the labels are within the figure, beside the data; no tick is there twice or touches another."""
    for name, figure in drawn.items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer, whole = canvas.get_renderer(), figure.bbox
        assert figure.get_figwidth() == style.width
        (legend,) = figure.legends
        box = legend.get_window_extent(renderer)
        assert (box.x0, box.y0) >= (-1, -1), name
        assert (box.x1, box.y1) <= (whole.x1 + 1, whole.y1 + 1), name
        for axes in figure.axes:
            assert not box.overlaps(axes.get_tightbbox(renderer)), name
            for axis in (axes.xaxis, axes.yaxis):
                label = axis.label.get_window_extent(renderer)
                assert label.x0 >= -1, name
                assert label.y0 >= -1, name
                assert label.x1 <= whole.x1 + 1, name
                assert label.y1 <= whole.y1 + 1, name
                low, high = sorted(axis.get_view_interval())
                inside = [low <= at <= high for at in axis.get_majorticklocs()]
                shown = list(itertools.compress(axis.get_majorticklabels(), inside))
                texts = [label.get_text() for label in shown if label.get_visible()]
                assert len(texts) == len({*texts}), f"{name}: {texts}"
                boxes = [label.get_window_extent(renderer) for label in shown]
                assert not any(one.overlaps(two) for one, two in itertools.pairwise(boxes)), f"{name}: {texts}"


@pytest.mark.parametrize("width", PAPER)
def test_the_text_of_a_paper_s_figure_is_of_one_size(width: str) -> None:
    for figure in of_study("transduction_positions", PAPER[width]).values():
        sizes = {text.get_fontsize() for axes in figure.axes for text in (axes.xaxis.label, axes.yaxis.label)}
        sizes |= {text.get_fontsize() for text in figure.legends[0].get_texts()}
        assert sizes == {PAPER[width].font}
        (small,) = {label.get_fontsize() for label in figure.axes[-1].get_xticklabels()}
        assert small == pytest.approx(0.9 * PAPER[width].font)


def test_a_paper_has_figures_for_a_column_and_for_a_page(sweep: Path, tmp_path: Path) -> None:
    found = write_paper_figures(compare(load_runs([sweep])), tmp_path / "figures")
    wanted = itertools.product(("curves", "cost"), ("column", "page"), ("pdf", "svg", "png"))
    assert {path.name for path in found} == {f"{name}-{width}.{suffix}" for name, width, suffix in wanted}
    assert all(path.read_bytes().startswith(b"%PDF") for path in found if path.suffix == ".pdf")


def test_more_than_eight_groups_have_small_panels_with_a_colour_each(make_run: MakeRun, tmp_path: Path) -> None:
    names = ("full", "local", "sparse", "linformer", "bigbird")
    for name, pairs, seed in itertools.product(names, (4, 8, 16), range(2)):
        make_run(0.5, seed=seed, attention=name, config={"data": {"pairs": pairs}})
    found = panels(compare(load_runs([tmp_path / "sweep"])))
    assert [panel.title for panel in found] == ["data.pairs=4", "data.pairs=8", "data.pairs=16"]
    assert all([*panel.rows] == [f"attention={name}" for name in names] for panel in found)
    assert [look["color"] for look in looks(found).values()] == [*COLOURS[:5]]
    axes = figures(compare(load_runs([tmp_path / "sweep"])))["curves"].axes
    assert [len(lines(each)) for each in axes] == [5, 5, 5]


def test_more_than_eight_groups_that_differ_in_one_setting_have_a_panel_each(make_run: MakeRun, tmp_path: Path) -> None:
    for pairs in range(MOST + 1):
        make_run(0.5 + pairs / 100, seed=0, config={"data": {"pairs": pairs + 1}})
    found = panels(compare(load_runs([tmp_path / "sweep"])))
    assert [len(panel.rows) for panel in found] == [1] * (MOST + 1)
    assert all(len(panel.others) == MOST for panel in found)
    assert len(figures(compare(load_runs([tmp_path / "sweep"])))["cost"].axes) == MOST + 1


def test_every_run_is_drawn_where_it_is_asked_for(sweep: Path) -> None:
    found = compare(load_runs([sweep]))
    drawn = figures(found, seeds=True)
    assert not any(lines(axes, SEED) for figure in figures(found).values() for axes in figure.axes)
    curves = {tuple(line.get_ydata()) for line in lines(drawn["curves"].axes[0], SEED)}
    assert curves == {tuple(run.curve("val/accuracy").values()) for row in found.rows for run in row.group.runs}
    points = [list(line.get_ydata()) for line in lines(drawn["cost"].axes[0], SEED)]
    assert points == [list(row.values.values()) for row in found.rows]


def test_a_trivial_baseline_is_a_line_at_its_value(make_run: MakeRun, tmp_path: Path) -> None:
    scores = {"majority": 0.45, "a wild guess": -30.0}
    for seed in range(3):
        make_run(0.5 + seed / 50, seed=seed, trivial_baselines=scores, baseline_metric="test/accuracy")
    found = compare(load_runs([tmp_path / "sweep"]))
    assert trivial_baselines(found.rows, "val/accuracy") == scores
    assert trivial_baselines(found.rows, "test/loss") == {}
    axes = figures(found)["curves"].axes[0]
    drawn = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines() if not line.get_gid()}
    assert drawn == {"majority (0.45)": [0.45, 0.45], "a wild guess (-30): below the axis": []}
    before = Figure().subplots()
    trivial_lines(before, found.rows, "test/perplexity")
    assert not before.get_lines()


def test_the_length_trained_at_is_marked(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(0.5, seed=0, metrics={"test/accuracy": 0.5, "test/accuracy@256": 0.4}, config={"data": {"block": 128}})
    axes = figures(compare(load_runs([tmp_path / "sweep"])))["length"].axes[0]
    (mark,) = (line for line in axes.get_lines() if line.get_label() == "trained up to 128")
    assert list(mark.get_xdata()) == [128, 128]
    assert list(axes.get_xticks()) == [256, 128]


def test_losses_and_their_difference_are_drawn_by_size(size_runs: Path) -> None:
    found = compare(load_runs([size_runs]), baseline="attention=full")
    figure = scaling_figure(found, RECORD, seeds=True)
    assert figure is not None
    left, right = figure.axes
    assert [list(line.get_xdata()) for line in lines(left)] == [[1e4, 4e4, 1.6e5, 6.4e5]] * 2
    for line in lines(left):
        means = [row.mean for row in found.rows if row.name.startswith(line.get_label())]
        assert list(line.get_ydata()) == pytest.approx(means)
    assert len(lines(left, SEED)) == 6
    ends = [max(line.get_xdata()) for line in right.get_lines() if len(line.get_xdata()) > 2]
    assert max(ends) == pytest.approx(4 * 6.4e5)
    (band, paler) = right.collections
    assert band.get_alpha() > paler.get_alpha()
    assert np.isfinite(band.get_paths()[0].vertices).all()
