"""Which setting the trials of a study choose for each variant, and what a comparison says of it."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.studies.conftest import MakeRun
from xformer.errors import ConfigError, DataError
from xformer.runs.recorded_run import RecordedRun, load_runs
from xformer.runs.summary import TuningRole
from xformer.studies.committed_runs import read_table, write_table
from xformer.studies.comparison import Comparison, compare
from xformer.studies.figure_style import RECORD
from xformer.studies.figures import figures
from xformer.studies.metric import Metric
from xformer.studies.output_formats import as_json, as_markdown
from xformer.studies.report_page import report_page
from xformer.studies.table import table_notes, table_records
from xformer.studies.trials import TrialSetting, choose, tuning_of
from xformer.studies.tuning_figure import tuning_figure

LESS, MORE = Metric("val/loss", "min"), Metric("val/accuracy", "max")
KEY = "optimizer.lr"


def setting(value: Any, *scores: float | None, unfinished: int = 0) -> TrialSetting:
    missing = {len(scores) + index: "interrupted: by Ctrl-C." for index in range(unfinished)}
    return TrialSetting({KEY: value}, dict(enumerate(scores)), missing)


def chosen(metric: Metric, *settings: TrialSetting) -> Any:
    found = choose(settings, metric)
    return None if found is None else found.values[KEY]


# The rule


def test_the_best_mean_is_chosen_in_the_direction_of_the_metric() -> None:
    settings = [setting(0.1, 3.0, 1.0), setting(0.2, 1.9, 1.9), setting(0.3, 2.5, 2.5)]
    assert chosen(LESS, *settings) == 0.2
    assert chosen(MORE, *settings) == 0.3


@pytest.mark.parametrize("order", [*itertools.permutations(range(4))])
def test_of_equal_means_the_lowest_values_win_in_any_order(order: tuple[int, ...]) -> None:
    settings = [setting(10, 1.0), setting(9, 1.0), setting("constant", 1.0), setting(11, 2.0)]
    assert chosen(LESS, *(settings[index] for index in order)) == 9


def test_a_setting_that_diverged_on_any_seed_is_never_chosen() -> None:
    assert chosen(LESS, setting(0.1, 2.0, 2.0), setting(0.2, 0.1, None)) == 0.1
    assert chosen(LESS, setting(0.1, None), setting(0.2, None)) is None


def test_a_setting_with_a_trial_missing_is_not_chosen_yet() -> None:
    assert chosen(LESS, setting(0.1, 2.0, 2.0), setting(0.2, 0.1, unfinished=1)) == 0.1
    assert chosen(LESS, setting(0.1, 2.0, 2.0), setting(0.2, 0.1)) == 0.1
    assert choose([], LESS) is None


def test_the_choice_is_that_of_an_array_of_means() -> None:
    scores = np.random.default_rng(0).normal(size=(7, 3))
    settings = [setting(index, *row) for index, row in enumerate(scores.tolist())]
    assert chosen(LESS, *settings) == scores.mean(1).argmin()
    assert chosen(MORE, *settings) == scores.mean(1).argmax()


# Runs

Scores = Mapping[tuple[str, float, int], float | None]
SCORES: Scores = {
    (attention, lr, seed): 0.5 - 0.1 * abs(index - best) + 0.001 * seed
    for attention, best in (("full", 1), ("linformer", 2))
    for index, lr in enumerate((0.001, 0.003, 0.01))
    for seed in (100, 101)
}
"""Full attention is best in the middle of the grid, linformer at its end."""
PLAN = {"keys": [KEY], "metric": "val/accuracy"}


def make(make_run: MakeRun, value: float | None, attention: str, lr: float, seed: int, **other: Any) -> None:
    trial = seed >= 100
    other = {"tuning": {**PLAN, "trial": trial}} | other
    other["tuning"] = TuningRole(**other["tuning"])
    if trial:
        other = {"metrics": {"val/accuracy": value}} | other
    typed = [f"attention={attention}", f"{KEY}={lr:g}", f"seed={seed}"]
    make_run(value, seed=seed, attention=attention, config={"optimizer": {"lr": lr}}, overrides=typed, **other)


def make_study(make_run: MakeRun, scores: Scores = SCORES, best: Mapping[str, float] | None = None) -> None:
    for (attention, lr, seed), value in scores.items():
        make(make_run, value, attention, lr, seed)
    for attention, lr in (best or {"full": 0.003, "linformer": 0.01}).items():
        for seed in range(3):
            make(make_run, 0.6 + 0.01 * seed * (attention == "full"), attention, lr, seed)


def runs(tmp_path: Path) -> list[RecordedRun]:
    return load_runs([tmp_path / "sweep"])


@pytest.fixture
def tuned(make_run: MakeRun, tmp_path: Path) -> Comparison:
    make_study(make_run)
    return compare(runs(tmp_path))


def test_each_group_has_its_own_choice_and_the_groups_differ_in_the_variant_alone(tuned: Comparison) -> None:
    assert tuned.differ.named == ("attention",)
    assert tuned.differ.also == ()
    found = {row.name: row.tuned.chosen.values[KEY] for row in tuned.rows if row.tuned and row.tuned.chosen}
    assert found == {"attention=full": 0.003, "attention=linformer": 0.01}
    assert all([*row.values] == [0, 1, 2] for row in tuned.rows)
    assert not tuned.left_out


def test_the_choice_the_trials_and_their_scores_are_told(tuned: Comparison) -> None:
    notes = " ".join(table_notes(tuned))
    assert "Tuned: optimizer.lr, for each group the setting with the highest mean val/accuracy" in notes
    assert "attention=full: optimizer.lr=0.003 was chosen from 3 settings in 6 trials (seeds 100, 101)" in notes
    assert "0.001: 0.5005, 0.003: 0.6005, 0.01: 0.5005." in notes
    assert [(record[f"chosen_{KEY}"], record["trials"]) for record in table_records(tuned)] == [(0.003, 6), (0.01, 6)]
    for text in (as_markdown(tuned), as_json(tuned)):
        assert "0.003" in text


def test_the_edge_of_the_grid_is_warned_of(tuned: Comparison) -> None:
    (warning,) = (w for w in tuned.warnings if "tried" in w)
    assert warning == (
        "attention=linformer: the chosen optimizer.lr=0.01 is the highest of those that were tried (0.001 to 0.01); a "
        "better one may lie beyond."
    )


def test_a_value_beyond_that_diverged_is_an_edge_that_was_seen(make_run: MakeRun, tmp_path: Path) -> None:
    make_study(make_run)
    for attention, seed in itertools.product(("full", "linformer"), (100, 101)):
        make(make_run, None, attention, 0.03, seed, status="failed", error="NaN.", diverged=True, metrics={})
    found = compare(runs(tmp_path))
    assert not [w for w in found.warnings if "tried" in w]
    assert "0.03: diverged" in " ".join(table_notes(found))
    assert not found.left_out


def test_unequal_trials_are_warned_of(make_run: MakeRun, tmp_path: Path) -> None:
    make_study(make_run, {key: value for key, value in SCORES.items() if key[:2] != ("full", 0.001)})
    (warning,) = (w for w in compare(runs(tmp_path)).warnings if "same trials" in w)
    assert "(attention=full 4, attention=linformer 6)" in warning


def test_a_group_without_trials_was_not_tuned(make_run: MakeRun, tmp_path: Path) -> None:
    make_study(make_run, {key: value for key, value in SCORES.items() if key[0] == "full"})
    assert "attention=linformer was not tuned: it has no trials." in compare(runs(tmp_path)).warnings


def test_a_trial_that_did_not_finish_is_warned_of(make_run: MakeRun, tmp_path: Path) -> None:
    make_study(make_run, {key: value for key, value in SCORES.items() if key != ("full", 0.001, 101)})
    make(make_run, None, "full", 0.001, 101, status="interrupted", error="Ctrl-C.", metrics={})
    found = compare(runs(tmp_path))
    assert any("optimizer.lr=0.001 could not be chosen" in w for w in found.warnings)
    assert found.rows[0].tuned
    assert found.rows[0].tuned.chosen


def test_final_runs_of_another_setting_are_left_out_with_the_reason(make_run: MakeRun, tmp_path: Path) -> None:
    make_study(make_run)
    make(make_run, 0.9, "full", 0.001, 0)
    found = compare(runs(tmp_path))
    assert all(value < 0.9 for row in found.rows for value in row.values.values())
    (reason,) = found.left_out.values()
    assert reason == (
        "it has optimizer.lr=0.001, and the trials of attention=full do not choose that: they choose "
        "optimizer.lr=0.003."
    )


def test_trials_alone_are_no_comparison(make_run: MakeRun, tmp_path: Path) -> None:
    make_study(make_run, best={})
    for path in [run.directory for run in runs(tmp_path) if not run.summary.is_trial]:
        assert path
        (path / "summary.json").unlink()
    trials = [run for run in runs(tmp_path) if run.summary.is_trial]
    with pytest.raises(DataError, match="There are 12 trials and no final run yet"):
        compare(trials)


def test_trials_of_different_tunings_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    make_study(make_run)
    make(make_run, 0.5, "local", 0.001, 100, tuning={"keys": [KEY], "metric": "val/loss", "trial": True})
    with pytest.raises(DataError, match=r"optimizer.lr by val/accuracy; optimizer.lr by val/loss"):
        compare(runs(tmp_path))


def test_a_metric_that_no_trial_has_is_a_sentence(make_run: MakeRun, tmp_path: Path) -> None:
    make(make_run, 0.5, "full", 0.001, 100, tuning={"keys": [KEY], "metric": "val/acuracy", "trial": True})
    with pytest.raises(ConfigError, match=r"study.tune.metric=val/acuracy is in no trial; did you mean val/accuracy"):
        tuning_of(runs(tmp_path))


def test_without_tuning_the_notes_say_so(sweep: Path) -> None:
    found = compare(load_runs([sweep]))
    assert any(note.startswith("Not tuned:") for note in table_notes(found))
    assert not any(note.startswith("Not tuned:") for note in table_notes(compare(load_runs([sweep])[:1])))


def test_a_committed_table_makes_the_same_choice(make_run: MakeRun, tmp_path: Path) -> None:
    make_study(make_run)
    make(make_run, None, "full", 0.03, 100, status="failed", error="NaN.", diverged=True, metrics={})
    write_table(tmp_path / "table", runs(tmp_path))
    then, now = tuning_of(runs(tmp_path)), tuning_of(read_table(tmp_path / "table"))
    assert then is not None
    assert now is not None
    assert {v.name: v.chosen for v in then.variants.values()} == {v.name: v.chosen for v in now.variants.values()}
    assert then.variants == now.variants
    first, second = compare(runs(tmp_path)), compare(read_table(tmp_path / "table"))
    assert table_notes(first) == table_notes(second)
    assert [w for w in first.warnings if "tried" in w] == [w for w in second.warnings if "tried" in w]


def test_a_table_without_tuning_is_written_as_before(sweep: Path, tmp_path: Path) -> None:
    write_table(tmp_path / "table", load_runs([sweep]))
    text = (tmp_path / "table" / "runs.csv").read_text() + (tmp_path / "table" / "shared.yml").read_text()
    assert not {word for word in ("trial,", "tuning", "diverged") if word in text}
    assert all(run.summary.tuning is None for run in read_table(tmp_path / "table"))


# The figure


def test_the_figure_has_a_line_for_each_variant_and_marks_its_choice(tuned: Comparison) -> None:
    figure = tuning_figure(tuned, RECORD)
    assert figure is not None
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    for name, best in (("attention=full", 1), ("attention=linformer", 2)):
        assert [*lines[name].get_xdata()] == [0.001, 0.003, 0.01]
        assert int(np.argmax(lines[name].get_ydata())) == best
    marked = [
        (*map(float, line.get_xdata()), *map(float, line.get_ydata()))
        for line in axes.lines
        if len(line.get_xdata()) == 1
    ]
    assert marked == [(0.003, pytest.approx(0.6005)), (0.01, pytest.approx(0.6005))]
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.001", "0.003", "0.01"]
    page = report_page([tuned], "A study")
    assert "the circle marks the setting that was chosen" in page


def test_several_settings_have_axes_of_their_own(make_run: MakeRun, tmp_path: Path) -> None:
    plan = {"keys": [KEY, "schedule"], "metric": "val/accuracy"}
    for attention, lr, schedule, seed in itertools.product(
        ("full", "local"), (0.1, 0.2), ("constant", "cosine"), (0, 100)
    ):
        if seed == 0 and (lr, schedule) != (0.2, "constant"):
            continue
        choices = {"attention": attention, "schedule": schedule, "data": "listops"}
        make_run(
            lr + (schedule == "constant"), seed=seed, attention=attention, choices=choices,
            config={"optimizer": {"lr": lr}}, tuning=TuningRole(**plan, trial=seed == 100),
            overrides=[f"attention={attention}", f"{KEY}={lr}", f"schedule={schedule}", f"seed={seed}"],
        )  # fmt: skip
    found = compare(runs(tmp_path))
    assert found.differ.named == ("attention",)
    first, second = figures(found)["tuning"].axes
    assert (first.get_xlabel(), second.get_xlabel()) == (KEY, "schedule")
    assert [text.get_text() for text in second.get_xticklabels()] == ["constant", "cosine"]
    assert first.get_xscale() == "linear"


def test_without_tuning_there_is_no_figure_of_it(sweep: Path) -> None:
    assert "tuning" not in figures(compare(load_runs([sweep])))
