"""What a table says of runs whose numbers are known."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from tests.studies.conftest import MakeRun
from xformer.errors import ConfigError, DataError
from xformer.runs.recorded_run import load_runs
from xformer.studies.comparison import compare
from xformer.studies.output_formats import FORMATS, as_terminal_text
from xformer.studies.table import findings, table_cells, table_headers, table_notes, table_records
from xformer.studies.verdicts import AnalysisPlan


def test_verdicts_are_those_of_a_paired_test_by_hand(sweep: Path) -> None:
    found = {row.name: row for row in compare(load_runs([sweep])).rows}
    assert {name: row.verdict for name, row in found.items()} == {
        "attention=full": "baseline",
        "attention=linformer": "worse",
        "attention=local": "no difference shown",
    }
    full, low = ([found[f"attention={a}"].values[s] for s in range(3)] for a in ("full", "linformer"))
    reference = stats.ttest_rel(low, full)
    row = found["attention=linformer"]
    assert row.difference
    assert row.difference.p == pytest.approx(reference.pvalue)
    assert row.p == pytest.approx(2 * reference.pvalue)
    assert row.mean == pytest.approx(sum(low) / 3)


@pytest.mark.parametrize(
    ("seeds", "steps", "tested", "word", "reach"),
    [
        (3, [0.125] * 3, ["sign-flip"], "no difference shown", "in every seed"),
        (6, [0.125] * 6, ["sign-flip"], "better", "[+0.1250, +0.1250]"),
        (3, [0.1, 0.125, 0.15], ["paired t test"], "better", "[+0."),
    ],
)
def test_the_note_names_the_test_that_was_used(
    seeds: int, steps: list[float], tested: list[str], word: str, reach: str, make_run: MakeRun, tmp_path: Path
) -> None:
    for seed, step in zip(range(seeds), steps, strict=True):
        make_run(0.25 + seed / 32, seed=seed)
        make_run(0.25 + seed / 32 + step, seed=seed, attention="local")
    found = compare(load_runs([tmp_path / "sweep"]))
    assert [row.verdict for row in found.rows] == ["baseline", word]
    (note,) = (note for note in table_notes(found) if "tested by" in note)
    assert [test for test in ("paired t test", "sign-flip") if test in note] == tested
    assert reach in table_cells(found, found.rows[1])[table_headers(found).index("difference to attention=full")]


def test_a_loss_that_is_higher_is_worse(sweep: Path) -> None:
    found = compare(load_runs([sweep]), "test/loss")
    assert found.metric.mode == "min"
    assert [row.verdict for row in found.rows][1] == "worse"


def test_a_baseline_is_the_group_that_is_equal_in_all_else(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(3):
        for pairs, best in ((4, 0.9), (8, 0.5)):
            other = {"config": {"data": {"pairs": pairs}}}
            make_run(best + 0.01 * seed + 0.001 * (pairs == 8 and seed == 1), seed=seed, **other)
            make_run(
                best - 0.2 + 0.0101 * seed + 0.0011 * (pairs == 8 and seed == 1), seed=seed, attention="local", **other
            )
    found = compare(load_runs([tmp_path / "sweep"]))
    assert found.differ.named == ("attention", "data.pairs")
    assert [(row.name, row.verdict) for row in found.rows] == [
        ("attention=full data.pairs=4", "baseline"),
        ("attention=local data.pairs=4", "worse"),
        ("attention=full data.pairs=8", "baseline"),
        ("attention=local data.pairs=8", "worse"),
    ]
    other = compare(load_runs([tmp_path / "sweep"]), baseline="data.pairs=8")
    assert [row.verdict for row in other.rows] == ["better", "better", "baseline", "baseline"]


def test_two_settings_that_differ_only_by_seed_are_never_compared(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(6):
        make_run(0.9 if seed < 3 else 0.1 + 0.001 * seed, seed=seed)
    rows = compare(load_runs([tmp_path / "sweep"])).rows
    assert [(row.verdict, len(row.values)) for row in rows] == [("baseline", 6)]


def test_seeds_that_are_not_common_give_no_verdict(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(2):
        make_run(0.9, seed=seed)
        make_run(0.1, seed=seed + 1, attention="local")
    found = compare(load_runs([tmp_path / "sweep"]))
    assert found.rows[1].verdict == "no verdict: 1 common seeds"
    assert any("same seeds" in warning for warning in found.warnings)
    assert any("fewer than 3 seeds" in warning for warning in found.warnings)


def test_a_run_that_did_not_finish_is_told_with_its_reason(sweep: Path, make_run: MakeRun) -> None:
    make_run(None, seed=3, attention="local", status="failed", error="The loss became NaN.")
    make_run(None, seed=3)
    make_run(None, seed=7, status="skipped", error="Its data is not there.")  # no seed of attention=full is lost
    killed = make_run(None, seed=9)
    (killed / "summary.json").unlink()  # as an earlier version left it
    make_run(None, seed=10, status="running")
    make_run(None, seed=11, status="interrupted", error="Stopped by Ctrl-C.")
    refused = make_run(None, seed=0, attention="performer", status="skipped", error="It cannot.")
    (refused / "config.yaml").unlink()
    found = compare(load_runs([sweep]))
    assert sorted(found.left_out.values()) == [
        "failed: The loss became NaN.",
        "interrupted: Stopped by Ctrl-C.",
        "it has no finite test/accuracy.",
        "running: It was killed, or is still running.",
        "running: It was killed, or is still running.",
        "skipped: It cannot.",
        "skipped: Its data is not there.",
    ]
    assert {row.name: row.lost for row in found.rows} == {
        "attention=full": 4, "attention=linformer": 0, "attention=local": 1,
    }  # fmt: skip
    for text in (FORMATS[kind](found) for kind in ("table", "markdown", "latex", "json")):
        assert "The loss became NaN." in " ".join(text.split())


def test_a_run_whose_seed_was_run_again_is_not_lost(sweep: Path, make_run: MakeRun) -> None:
    make_run(None, seed=1, attention="local", status="failed", error="The disk was full.")
    found = compare(load_runs([sweep]))
    assert [row.lost for row in found.rows] == [0, 0, 0]
    assert list(found.left_out.values()) == ["failed: The disk was full."]
    assert not any("have no value" in warning for warning in found.warnings)


def test_a_shared_setting_beside_one_that_differs_is_a_baseline(sweep: Path) -> None:
    found = compare(load_runs([sweep]), baseline="attention=local optimizer.lr=0.001")
    assert found.baseline == "attention=local"
    only = [run for run in load_runs([sweep]) if run.settings["attention"] == "full"]
    assert [row.verdict for row in compare(only, baseline="optimizer.lr=0.001").rows] == ["baseline"]


@pytest.mark.parametrize(("kind", "start"), [("latex", "% "), ("markdown", "- ")])
def test_a_reason_of_many_lines_is_told_on_one(kind: str, start: str, sweep: Path, make_run: MakeRun) -> None:
    make_run(None, seed=3, status="failed", error="RuntimeError: shapes\n  (3, 4)\ndiffer")
    line = next(line for line in FORMATS[kind](compare(load_runs([sweep]))).splitlines() if "RuntimeError" in line)
    assert line.startswith(start)
    assert line.endswith("shapes (3, 4) differ")


def test_trivial_baselines_are_told_of_the_metric_that_they_are_of(sweep: Path, make_run: MakeRun) -> None:
    told = table_notes(compare(load_runs([sweep]), "test/loss"))
    assert "Trivial baselines: chance 0.1." in told
    make_run(0.5, seed=4, baseline_metric="test/accuracy")
    make_run(0.5, seed=5, baseline_metric="test/loss", trivial_baselines={"unigrams": 2.5, "broken": None})
    told = table_notes(compare(load_runs([sweep]), "test/loss"))
    assert "Trivial baselines in test/accuracy: chance 0.1." in told
    assert "Trivial baselines in test/loss: unigrams 2.5." in told


@pytest.mark.parametrize("names", [{}, {"config": {"data": {"pairs": 1_000_000}, "optimizer": {"lr": 0.123456}}}])
def test_a_table_breaks_no_word_in_80_columns(names: dict, sweep: Path, make_run: MakeRun) -> None:
    for seed in range(3 * bool(names)):
        make_run(0.7, seed=seed, attention="local", **names)
    found = compare(load_runs([sweep]))
    lines = as_terminal_text(found, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    inside = [[cell.strip() for cell in re.split("[│┃]", line)] for line in lines if line[0] in "│┃"]
    shown = {cell for line in inside for cell in line}
    for row in found.rows:
        assert {cell.strip() for cell in table_cells(found, row)} <= shown
    words = {word for line in inside for cell in line for word in cell.split()}
    assert {word for title in table_headers(found) for word in title.split()} <= words
    wide = as_terminal_text(found, width=300).splitlines()
    assert sum(line.startswith("┏") for line in wide) == 1


def test_no_value_at_all_is_an_error(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(None, seed=0, status="failed", error="Broken.")
    with pytest.raises(DataError, match=r"Broken\."):
        compare(load_runs([tmp_path / "sweep"]))


def test_a_cell_that_was_run_twice_counts_once(sweep: Path, make_run: MakeRun) -> None:
    repeated = make_run(0.8, seed=0)
    found = compare(load_runs([sweep]))
    assert len(found.rows[0].values) == 3
    assert list(found.left_out.values()) == [f"repeated with the same result as {repeated}."]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"git": {"commit": "d" * 40, "dirty": False}}, "2 commits"),
        ({"git": {"commit": "c" * 40, "dirty": True}}, "uncommitted changes"),
        ({"versions": {"torch": "2.14"}}, "several versions of torch: 2.13, 2.14"),
        ({"hardware": {"cpu": "Other", "cores": 2, "torch_threads": 1}}, "different machines"),
        ({"data_fingerprint": "g"}, "fingerprints f, g"),
        ({"tokens_seen": 600}, "20 % in tokens"),
        ({"config": {"optimizer": {"lr": 0.1}}}, "these settings differ: optimizer.lr"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_one_is_warned_of(other: dict, words: str, make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(3):
        make_run(0.5, seed=seed)
        make_run(0.5, seed=seed, attention="local", **other)
    runs = load_runs([tmp_path / "sweep"])
    assert [words in " ".join(compare(runs).warnings)] == [True]
    assert not compare([replace(run) for run in runs[::2]]).warnings


def test_budgets_within_five_per_cent_are_equal(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(3):
        make_run(0.5, seed=seed)
        make_run(0.5, seed=seed, attention="local", parameters=1049, wall_seconds=9.6)
    assert not compare(load_runs([tmp_path / "sweep"])).warnings


@pytest.mark.parametrize(
    ("metric", "baseline", "words"),
    [
        ("test/acuracy", None, ["--metric test/acuracy", "did you mean test/accuracy?"]),
        (None, "attention=fool", ["--baseline attention=fool matches no group", "attention=full"]),
        (None, "full", ["--baseline full is not of the form KEY=VALUE; did you mean attention=full?"]),
        (None, "fool", ["--baseline fool is not of the form KEY=VALUE; the groups: attention=full; "]),
        (None, "optimizer.lr=0.001", ["matches every group", "differ in attention"]),
        (None, "optimizer.lr=0.2", ["do not differ in optimizer.lr", "attention"]),
    ],
)
def test_a_mistake_is_a_sentence(metric: str | None, baseline: str | None, words: list[str], sweep: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        compare(load_runs([sweep]), metric, baseline)
    for word in words:
        assert word in str(caught.value)


def test_all_formats_tell_the_same_numbers(sweep: Path) -> None:
    found = compare(load_runs([sweep]))
    content = json.loads(FORMATS["json"](found))
    lines = FORMATS["csv"](found).splitlines()
    for row, group, line in zip(found.rows, content["groups"], lines[1:], strict=True):
        assert group["mean"] == row.mean
        assert dict(zip(lines[0].split(","), line.split(","), strict=True))["mean"] == repr(row.mean)
        for kind in ("markdown", "latex", "table"):
            assert f"{row.mean:.4f}" in FORMATS[kind](found)
    assert r"\toprule" in FORMATS["latex"](found)


def test_intervals_of_differences_are_of_the_kind_that_was_asked_for(sweep: Path) -> None:
    runs = load_runs([sweep])
    reach = {kind: compare(runs, intervals=kind).rows[1].reach for kind in ("corrected", "plain", "simultaneous")}
    corrected, plain, simultaneous = reach.values()
    assert corrected
    assert plain
    assert simultaneous
    assert corrected.low < plain.low < plain.high < corrected.high < 0
    assert (corrected.level, plain.level) == pytest.approx((0.975, 0.95))
    assert (simultaneous.low, simultaneous.high) == (-1.0, 0.0)  # accuracies differ by no more than 1
    with pytest.raises(ConfigError, match="not defined with study"):
        compare(runs, plan=AnalysisPlan(looks=(3, 6)), intervals="simultaneous")


def test_beside_no_difference_shown_stands_what_the_seeds_could_have_shown(sweep: Path) -> None:
    found = compare(load_runs([sweep]))
    row = found.rows[2]
    assert row.test
    assert row.test.smallest
    column = table_headers(found).index("detectable")
    assert table_cells(found, row)[column] == f"{row.test.smallest:.4f}"
    (sentence,) = (each for each in findings(found) if "no difference shown" in each)
    assert f"3 seeds show {row.test.smallest:.4f} with 80 % power; one of 0.0007 would take" in sentence
    record = table_records(found)[2]
    assert record["detectable_difference"] == row.test.smallest
    assert record["seeds_needed"] == row.test.seeds


@pytest.mark.parametrize(("margin", "word"), [(0.1, "equivalent within 0.1"), (0.01, "no difference shown")])
def test_a_margin_makes_equivalents(margin: float, word: str, sweep: Path) -> None:
    found = compare(load_runs([sweep]), plan=AnalysisPlan(margin=margin))
    assert [row.verdict for row in found.rows] == ["baseline", "worse", word]
    assert any(f"Equivalent within {margin:g}: two one-sided" in note for note in table_notes(found))
    assert table_records(found)[2]["equivalent"] == (margin == 0.1)
    assert f"attention=local: {word} {'to' if margin == 0.1 else 'from'} attention=full" in findings(found)[1]


def test_a_difference_smaller_than_the_margin_says_so(sweep: Path) -> None:
    found = compare(load_runs([sweep]), plan=AnalysisPlan(margin=0.5))
    assert found.rows[1].verdict == "worse"
    assert "worse than attention=full, by less than 0.5 (" in findings(found)[0]
    assert "worse by less than 0.5" in table_cells(found, found.rows[1])


def test_declared_looks_are_in_p_values_and_notes(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(4):
        make_run(0.5 + 0.01 * seed, seed=seed)
        make_run(0.55 + 0.03 * seed, seed=seed, attention="local")
    runs = load_runs([tmp_path / "sweep"])
    once, look = compare(runs), compare(runs, plan=AnalysisPlan(looks=(3, 6)))
    assert (once.rows[1].verdict, look.rows[1].verdict) == ("better", "no difference shown")
    assert once.rows[1].difference
    assert look.rows[1].difference
    assert (once.rows[1].difference.pairs, look.rows[1].difference.pairs) == (4, 3)
    assert any("Looks were declared at 3, 6 seeds" in note for note in table_notes(look))
    early = compare(runs, plan=AnalysisPlan(looks=(5, 10)))
    assert early.rows[1].verdict == "no verdict: 4 common seeds, the first look is at 5"


def test_intervals_of_accuracies_are_between_0_and_1(make_run: MakeRun, tmp_path: Path) -> None:
    for seed, value in enumerate((0.70, 0.97, 0.99)):
        make_run(value, seed=seed)
        make_run(value, seed=seed, attention="local")
    for metric in ("test/accuracy", "test/loss"):
        found = compare(load_runs([tmp_path / "sweep"]), metric)
        assert found.rows[0].interval
        assert found.rows[0].interval.low > 0
        assert metric == "test/loss" or found.rows[0].interval.high < 1
        assert any("Student's t on an unbounded scale" in note for note in table_notes(found))
