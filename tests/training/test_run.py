"""A run, from its configuration to its summary, in this process."""

import csv
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from tests.contracts.variants import ENCODERS, MIXERS
from tests.studies.service import of_file, offline_file, records
from xformer.config.groups import groups
from xformer.config.plan import Plan
from xformer.data.batch import ClassificationBatch
from xformer.errors import RunError
from xformer.loggers.wandb import RECORD
from xformer.runs.checkpoints import readable_checkpoints
from xformer.runs.metrics_table import read_metrics
from xformer.runs.recorded_run import read_run
from xformer.runs.summary import read_summary
from xformer.studies.wandb_runs import _run
from xformer.tasks.classification import Classification
from xformer.training.launch_checks import check_sweep
from xformer.training.run import run

FAST = [*SMALL, *SMALL_LISTOPS]
TINY_TEXT = [*SMALL, "task=language_modeling", "data.block=32"]


def test_a_run_leaves_a_self_contained_directory(compose_job: ComposeJob) -> None:
    job = compose_job(*FAST, "attention=linformer", "attention.rank=8", "seed=3")
    best = run(job)
    summary = read_summary(job.directory)
    assert summary.status == "finished"
    assert summary.error is None
    assert summary.choices["attention"] == "linformer"
    assert summary.attention == {"self": "linformer"}
    assert summary.overrides == job.overrides
    assert summary.seed == 3
    assert {"train/loss", "val/loss", "val/accuracy", "test/loss", "test/accuracy"} <= set(summary.metrics)
    assert summary.monitor is not None
    assert (summary.monitor.name, summary.monitor.best, summary.monitor.step) == ("val/accuracy", best, 5)
    assert set(summary.trivial_baselines) == {"majority class", "root operator"}
    for number in ("parameters", "flops_per_token", "tokens_seen", "peak_memory_bytes", "wall_seconds"):
        assert getattr(summary, number) > 0
    assert summary.versions["torch"] == torch.__version__
    assert summary.data_fingerprint
    config = OmegaConf.load(job.directory / "config.yaml")
    assert config.attention.rank == 8
    with (job.directory / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"train/loss", "val/accuracy", "test/accuracy"} <= {row["metric"] for row in rows}
    assert len({(row["step"], row["metric"]) for row in rows}) == len(rows)
    assert any(readable_checkpoints(job.directory))


@pytest.mark.parametrize(
    "overrides",
    [
        [*FAST, "position=sinusoidal"],
        [*FAST, "position=none", "task.pooling=class"],
        [*FAST, "architecture=decoder", "architecture.norm=post", "architecture.activation=relu"],
        [*FAST, "architecture.activation=swiglu", "architecture.gradient_checkpointing=true"],
        [*FAST, "optimizer=adam", "schedule=inverse_sqrt", "trainer.accumulate_grad_batches=2"],
        [*FAST, "schedule=warmup_linear", "trainer.precision=bf16-mixed", "task.label_smoothing=0.1"],
        [*SMALL, "data=digits", "schedule=constant", "trainer.gradient_clip_val=null"],
        [*TINY_TEXT, "tokenizer=byte"],
        [*TINY_TEXT, "task.tied_embeddings=false"],
        ["trainer.fast_dev_run=true", "size=tiny", "logger=csv", *SMALL_LISTOPS, "trainer.accelerator=cpu"],
    ],
    ids=lambda overrides: " ".join(o for o in overrides if o not in FAST),
)
def test_choices_run(overrides: list[str], compose_job: ComposeJob) -> None:
    job = compose_job(*overrides)
    run(job)
    summary = read_summary(job.directory)
    assert summary.status == "finished"
    assert summary.metrics["val/loss"] is not None


def test_what_was_logged_stands_in_the_offline_file(compose_job: ComposeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    job = compose_job("experiment=listops_attentions", *FAST, "logger=wandb", "trainer.limit_train_batches=1.0")
    run(job)
    found = records(offline_file(job.directory))
    (start,) = [record["run"] for record in found if record["type"] == "run"]
    assert (start["run_group"], start["job_type"], start["display_name"]) == (
        "listops_attentions",
        "train",
        job.name[:128],
    )
    assert {"attention=full", "task=classification"} <= set(start["tags"])
    assert start["config"]["update"]["optimizer"]["lr"] == 1e-3
    items = [record["history"]["item"] for record in found if record["type"] == "history"]
    logged = {(item["trainer/global_step"], name): item[name] for item in items for name in item}
    written = [row for row in read_metrics(job.directory / "metrics.csv") if row.metric != "tokens_per_second"]
    assert len(written) > 10
    for row in written:
        assert logged[row.step, row.metric] == pytest.approx(row.value)
        if not row.metric.startswith("test/"):
            assert logged[row.step, "tokens"] == pytest.approx(row.tokens)
    assert [record["exit"]["exit_code"] for record in found if record["type"] == "exit"] == [0]
    monkeypatch.setenv("WANDB_DIR", str(job.directory))
    there, here = _run("me/xformer", of_file("me", offline_file(job.directory))), read_run(job.directory)
    assert (there.settings, there.summary) == (here.settings, here.summary)
    assert there.config == OmegaConf.to_container(OmegaConf.load(job.directory / "config.yaml"))
    assert type(there.config["trainer"]["limit_train_batches"]) is float  # 1.0 is all batches, and 1 is one
    assert there.curve("train/loss") == pytest.approx(here.curve("train/loss"))
    (began,) = [record["config"]["update"][RECORD] for record in found if record["type"] == "config"]
    assert (began["overrides"], began["seed"]) == (job.overrides, 0)
    assert len(began["git"]["commit"]) == 40
    assert began["parameters"] == here.summary.parameters


def test_one_seed_is_bit_identical_and_another_is_not(compose_job: ComposeJob, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(compose_job(*FAST, f"seed={seed}", "architecture.dropout=0.1", directory=tmp_path / name))
    a, b, c = (torch.load(tmp_path / n / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for n in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not any(torch.equal(a[key], c[key]) for key in a if key.endswith("query.weight"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "reference", "option"),
    [
        (group, reference, option)
        for group, reference in (("attention", "full"), ("position", "none"))
        for option in groups()[group]
    ],
)
def test_options_start_from_the_same_shared_weights(
    group: str, reference: str, option: str, compose_job: ComposeJob, tmp_path: Path
) -> None:
    mixer = group == "attention" and option in MIXERS
    architecture = "decoder" if mixer else "encoder"

    def weights(name: str) -> dict[str, torch.Tensor]:
        words = [*FAST, f"{group}={name}", f"architecture={architecture}"]
        plan = Plan.of(compose_job(*words, directory=tmp_path / name).config)
        plan.load_data()
        return plan.build_task().state_dict()

    expected, found = weights(reference), weights(option)
    # A token mixer has projections of its own: what it shares is everything around it.
    shared = {key for key in expected if not (mixer and ".attention.branch." in key)}
    assert shared
    assert shared <= set(found)
    assert all(torch.equal(expected[key], found[key]) for key in shared)


def test_every_variant_is_trained_on_the_same_batches(
    compose_job: ComposeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a variant draws at random, when it is built and while it trains."""
    seen: dict[str, list[torch.Tensor]] = {}
    step = Classification.training_step
    for name in ENCODERS:
        batches = seen[name] = []

        def watched(self: Classification, batch: ClassificationBatch, index: int, found: list = batches) -> Any:
            found.append(batch.tokens)
            return step(self, batch, index)

        monkeypatch.setattr(Classification, "training_step", watched)
        redraws = ["attention.redraw_interval=1"] if name == "performer" else []
        options = [f"attention={name}", *redraws, "trainer.max_steps=8", "trainer.limit_val_batches=1"]
        run(
            compose_job(*FAST, *options, "data.generation.test_size=1", directory=tmp_path / name)
        )  # more than an epoch
    for name, batches in seen.items():
        assert len(batches) == 8
        assert all(torch.equal(a, b) for a, b in zip(batches, seen["full"], strict=True)), name
    assert not torch.equal(seen["full"][0], seen["full"][-1])


def test_an_earlier_run_is_kept_unless_resumed(compose_job: ComposeJob) -> None:
    run(compose_job(*FAST))
    with pytest.raises(RunError, match="resume=true continues it"):
        run(compose_job(*FAST))
    job = compose_job(*FAST, "resume=true", "trainer.max_steps=10")
    run(job)
    state = next(readable_checkpoints(job.directory))[1]
    assert state["global_step"] == 10
    with (job.directory / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["metric"] == "train/loss"]
    assert steps == list(range(10))


def test_resume_without_a_checkpoint_is_refused(compose_job: ComposeJob) -> None:
    with pytest.raises(RunError, match="no readable checkpoint"):
        run(compose_job(*FAST, "resume=true"))


def test_a_damaged_checkpoint_is_passed_over(compose_job: ComposeJob, caplog: pytest.LogCaptureFixture) -> None:
    job = compose_job(*FAST)
    run(job)
    good, _ = next(readable_checkpoints(job.directory))
    damaged = job.directory / "checkpoints" / "newer.ckpt"
    damaged.write_bytes(good.read_bytes()[:1000])
    assert next(readable_checkpoints(job.directory))[0] == good
    assert "newer.ckpt cannot be read" in caplog.text


def test_a_resumed_run_equals_an_uninterrupted_one(compose_job: ComposeJob, tmp_path: Path) -> None:
    steps = [*FAST, "architecture.dropout=0.1", "schedule=constant", "trainer.val_check_interval=4"]
    run(compose_job(*steps, "trainer.max_steps=12", directory=tmp_path / "whole"))
    run(compose_job(*steps, "trainer.max_steps=8", directory=tmp_path / "parts"))
    run(compose_job(*steps, "trainer.max_steps=12", "resume=true", directory=tmp_path / "parts"))
    whole, parts = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("whole", "parts")
    )
    assert whole["global_step"] == parts["global_step"] == 12
    assert all(torch.equal(whole["state_dict"][key], parts["state_dict"][key]) for key in whole["state_dict"])


def test_ddp_in_a_sweep_needs_a_launcher_with_one_process_tree_per_job(compose_job: ComposeJob) -> None:
    job = compose_job(*FAST, "trainer.strategy=ddp", sweep=True)
    with pytest.raises(RunError, match="whole sweep again"):
        check_sweep(job)
    check_sweep(dataclasses.replace(job, launcher="slurm"))
    check_sweep(dataclasses.replace(job, sweep=False))
