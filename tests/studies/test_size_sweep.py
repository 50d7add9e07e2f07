"""A comparison over sizes: which settings have curves, in which seeds, against which baseline."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.studies.conftest import MakeRun
from xformer.runs.recorded_run import load_runs
from xformer.studies.comparison import compare
from xformer.studies.output_formats import FORMATS
from xformer.studies.size_sweep import scaling_sentences, size_sweep


def test_the_losses_of_each_setting_are_those_of_its_runs_by_size(size_runs: Path) -> None:
    found = compare(load_runs([size_runs]), baseline="attention=full")
    sweep = size_sweep(found)
    assert sweep is not None
    assert [*sweep.losses] == ["attention=full", "attention=linformer"]
    assert sweep.baselines == {"attention=linformer": "attention=full"}
    for name, losses in sweep.losses.items():
        assert losses.scales.tolist() == [1e4, 4e4, 1.6e5, 6.4e5]
        rows = [row for row in found.rows if row.name.startswith(name)]
        rows.sort(key=lambda row: row.budget.parameters or 0)
        assert losses.losses.tolist() == [[row.values[seed] for seed in range(3)] for row in rows]
    by_flops = size_sweep(replace(found, scale="flops"))
    assert by_flops is None  # every run of these spent the same


def test_a_difference_that_grows_is_a_sentence_in_every_format(size_runs: Path) -> None:
    found = compare(load_runs([size_runs]), baseline="attention=full")
    (sentence,) = scaling_sentences(found)
    assert sentence.startswith("attention=linformer: the difference to attention=full grows with scale (test/loss ")
    assert "at 10 k parameters" in sentence
    assert sentence.endswith(
        "nothing is said beyond 4 times that, 2.56 M: nothing measured says that the power law goes on."
    )
    assert sentence in FORMATS["markdown"](found)
    assert sentence in " ".join(FORMATS["table"](found).split())
    content = json.loads(FORMATS["json"](found))["scaling"]
    assert content["by"] == "parameters"
    difference = content["differences"]["attention=linformer"]
    true = {scale: (scale / 1e4) ** -0.3 - (scale / 1e4) ** -0.2 for scale in (1e4, 6.4e5)}
    assert difference["first"]["mean"] == pytest.approx(true[1e4], abs=0.01)
    assert difference["last"]["mean"] == pytest.approx(true[6.4e5], abs=0.01)
    assert difference["band"][-1]["scale"] == pytest.approx(4 * 6.4e5)


def test_without_three_sizes_there_is_none(size_runs: Path) -> None:
    few = [run for run in load_runs([size_runs]) if (run.summary.parameters or 0) < 100_000]
    assert size_sweep(compare(few, baseline="attention=full")) is None
    assert scaling_sentences(compare(few, baseline="attention=full")) == []


def test_a_metric_of_which_more_is_better_has_no_power_law(sweep: Path, make_run: MakeRun) -> None:
    for size in (1, 2, 3):
        make_run(0.5, seed=0, parameters=1000 * size, config={"size": {"d_model": size}})
    assert size_sweep(compare(load_runs([sweep]), "test/accuracy")) is None


def test_seeds_that_a_size_lacks_are_left_out(size_runs: Path) -> None:
    runs = load_runs([size_runs])
    lacking = [run for run in runs if not (run.seed == 2 and run.summary.parameters == 40_000)]
    sweep = size_sweep(compare(lacking, baseline="attention=full"))
    assert sweep is not None
    assert [losses.losses.shape for losses in sweep.losses.values()] == [(4, 2), (4, 2)]
    assert np.isfinite(sweep.differences["attention=linformer"].means).all()


def test_where_a_size_is_the_baseline_the_first_setting_is_compared_with(size_runs: Path) -> None:
    found = compare(load_runs([size_runs]), baseline="size.d_model=16")
    sweep = size_sweep(found)
    assert sweep is not None
    assert sweep.baselines == {"attention=linformer": "attention=full"}
