"""Variants of equal size: the dimension is the nearest there is, and the run is the one that has it set by hand."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from xformer.config.match import Matched
from xformer.config.plan import Plan
from xformer.errors import ConfigError
from xformer.runs.recorded_run import load_runs
from xformer.runs.summary import read_summary
from xformer.training import cost
from xformer.training.matching import match_size
from xformer.training.run import run

FAST = [*SMALL, *SMALL_LISTOPS, "trainer.max_steps=2"]
LINFORMER = ["attention=linformer", "attention.rank=8", "size.layers=2"]


@pytest.fixture
def matched(compose_job: ComposeJob):
    def call(*overrides: str) -> tuple[Matched, Plan]:
        job = compose_job(*FAST, *overrides)
        plan = Plan.of(job.config)
        plan.load_data()
        plan = match_size(plan)
        found = plan.matched
        assert found is not None
        assert OmegaConf.select(job.config, found.by) == found.now
        return found, plan

    return call


def test_linformers_projections_are_paid_for_by_the_feed_forward_layer(matched) -> None:
    found, plan = matched(*LINFORMER, "match=parameters")
    length, d_model = plan.data.spec.length, 32
    projections, unit = 2 * 8 * length, 2 * d_model + 1  # of a layer: E and F; two weights and a bias of a feature
    assert (found.by, found.was, found.now) == ("size.feed_forward", 64, 64 - round(projections / unit))
    assert found.reached == cost.trainable_parameters(plan.build_task())
    assert found.reached - found.reference == 2 * (projections - (found.was - found.now) * unit)
    assert found.difference == pytest.approx(100 * (found.reached / found.reference - 1))


def test_flops_are_those_of_the_summary(compose_job: ComposeJob, tmp_path: Path, capsys) -> None:
    """BigBird at this length computes less than full attention, block by block: its layers may be wider."""
    bigbird = ["attention=bigbird", "attention.block=4", "attention.random_blocks=1", "size.d_model=16"]
    run(compose_job(*FAST, "size.d_model=16", directory=tmp_path / "full"))
    run(compose_job(*FAST, *bigbird, directory=tmp_path / "plain"))
    run(compose_job(*FAST, *bigbird, "match=flops", directory=tmp_path / "matched"))
    full, plain, found = (read_summary(tmp_path / name) for name in ("full", "plain", "matched"))
    assert full.flops_per_token
    assert plain.flops_per_token
    assert plain.flops_per_token < 0.9 * full.flops_per_token
    assert found.flops_per_token == pytest.approx(full.flops_per_token, rel=0.005)
    assert found.matched is not None
    assert (found.matched["reference"], found.matched["reached"]) == (full.flops_per_token, found.flops_per_token)
    config = OmegaConf.load(tmp_path / "matched" / "config.yaml")
    assert config.size.feed_forward == config.architecture.size.feed_forward == found.matched["now"] > 64
    shown = capsys.readouterr().out
    assert f"Matched to attention=full: size.feed_forward 64 -> {found.matched['now']} gives" in shown


def test_a_matched_run_is_the_one_with_the_dimension_set_by_hand(compose_job: ComposeJob, tmp_path: Path) -> None:
    again = [*FAST, *LINFORMER, "architecture.dropout=0.1"]
    run(compose_job(*again, "match=parameters", directory=tmp_path / "matched"))
    now = read_summary(tmp_path / "matched").matched["now"]  # type: ignore[index]
    run(compose_job(*again, f"size.feed_forward={now}", directory=tmp_path / "target_overrides"))
    states = [
        torch.load(tmp_path / n / "checkpoints/last.ckpt", weights_only=True) for n in ("matched", "target_overrides")
    ]
    assert all(torch.equal(states[0]["state_dict"][key], found) for key, found in states[1]["state_dict"].items())

    # What the run left says all: the same comes out of it, and compare shows what was asked for.
    job = compose_job(*again, "match=parameters", directory=tmp_path / "again")
    for key, value in OmegaConf.load(tmp_path / "matched" / "config.yaml").items():
        if key in ("size", "match"):
            job.config[key] = value
    run(job)
    assert read_summary(tmp_path / "again").matched == read_summary(tmp_path / "matched").matched
    (asked,) = load_runs([tmp_path / "matched"])
    assert asked.settings["size.feed_forward"] == 64
    assert asked.settings["match"] == "parameters"


def test_a_finished_cell_is_known_again(compose_job: ComposeJob, capsys: pytest.CaptureFixture[str]) -> None:
    run(compose_job(*FAST, *LINFORMER, "match=parameters", "skip_finished=true"))
    run(compose_job(*FAST, *LINFORMER, "match=parameters", "skip_finished=true"))
    assert "Already finished" in capsys.readouterr().out


def test_the_reference_stays_as_it_is(matched) -> None:
    found, _ = matched("match=parameters")
    assert (found.was, found.now, found.difference) == (64, 64, 0)


def test_heads_divide_a_width_that_is_adjusted(matched) -> None:
    found, plan = matched(*LINFORMER, "size.heads=4", "match=parameters", "match.by=size.d_model")
    assert found.now % 4 == 0
    assert found.now < 32
    nearest = min(range(4, 64, 4), key=lambda width: abs(_parameters(plan, width) - found.reference))
    assert found.now == nearest


def _parameters(plan: Plan, width: int) -> int:
    """By hand, for two layers of Linformer."""
    length, inner = plan.data.spec.length, 64
    block = 4 * (width * width + width) + 2 * width * inner + inner + width + 2 * 2 * width + 2 * 8 * length
    return width * (plan.data.spec.vocabulary + length) + 2 * block + 2 * width + 10 * width + 10


def test_another_reference_can_be_chosen(matched) -> None:
    found, _ = matched(*LINFORMER, "match=parameters", "match.to.attention=linformer", "match.by=attention.rank")
    assert (found.was, found.now, found.difference, found.to) == (8, 32, 0, "attention=linformer")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["attention=linformer", "attention.rank=64"], r"out of reach: with attention=full .* size\.feed_forward=1;"),
        (["match.by=optimizer.lr"], r"match\.by=optimizer\.lr is not a dimension"),
        (["match.by=size.width"], r"match\.by=size\.width is not a dimension"),
        (["match.by=data.loader.batch_size"], r"match\.by=data\.loader\.batch_size does not change the parameters"),
        (["match.to.attention=fool"], r"match\.to\.attention=fool is not an option; Valid: additive, "),
        (["+match.to.atention=full"], r"match\.to\.atention=full: atention is not a choice of this run; did you mean "),
    ],
)
def test_what_cannot_be_matched_is_refused_in_a_sentence(overrides: list[str], words: str, matched) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        matched("match=parameters", *overrides)
    assert "\n" not in str(caught.value)
