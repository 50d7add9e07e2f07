"""From a configuration to Lightning's Trainer: what it is given, and what it refuses told by key."""

from pathlib import Path

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from omegaconf import OmegaConf

from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from xformer.callbacks.throughput import Throughput
from xformer.callbacks.train_metrics import TrainMetrics
from xformer.config.plan import Plan
from xformer.data.spec import DataSpec
from xformer.errors import ConfigError
from xformer.loggers.metrics_csv import MetricsCSV
from xformer.runs.checkpoints import CheckpointFiles
from xformer.tasks.base import Task
from xformer.training.trainer import as_config_errors, build_loggers, build_trainer, check_monitors, write_config

FAST = [*SMALL, *SMALL_LISTOPS]


def task_of(compose_job: ComposeJob, *overrides: str) -> Task:
    plan = Plan.of(compose_job(*FAST, *overrides).config)
    plan.data.spec = DataSpec(vocabulary=9, length=8, classes=3)
    return plan.build_task()


def test_checkpoints_go_into_the_run_and_are_written_whole(compose_job: ComposeJob) -> None:
    job = compose_job(*FAST)
    trainer = build_trainer(job)
    kept = [callback for callback in trainer.callbacks if isinstance(callback, ModelCheckpoint)]
    assert kept
    assert {Path(str(callback.dirpath)).parent for callback in kept} == {job.directory}
    assert isinstance(trainer.strategy.checkpoint_io, CheckpointFiles)
    assert sum(isinstance(callback, TrainMetrics) for callback in trainer.callbacks) == 1
    assert not trainer.loggers


def test_a_callback_that_was_switched_off_or_set_to_null_is_not_there(compose_job: ComposeJob) -> None:
    on = ["debug=fast", "size=tiny", "trainer.accelerator=cpu", *SMALL_LISTOPS, "trainer.enable_progress_bar=true"]

    def has(kind: type, *overrides: str) -> bool:
        callbacks = build_trainer(compose_job(*on, *overrides)).callbacks  # type: ignore[attr-defined]
        return any(isinstance(callback, kind) for callback in callbacks)

    for kind, switch in (
        (ModelCheckpoint, "trainer.enable_checkpointing=false"),
        (ProgressBar, "trainer.enable_progress_bar=false"),
        (Throughput, "callbacks.throughput=null"),
    ):
        assert has(kind)
        assert not has(kind, switch)


def test_the_table_is_always_among_the_loggers_and_the_configuration_beside_it(compose_job: ComposeJob) -> None:
    job = compose_job(*FAST, "optimizer.lr=0.5")
    (table,) = build_loggers(job)
    assert isinstance(table, MetricsCSV)
    write_config(job)
    assert OmegaConf.load(job.directory / "config.yaml").optimizer.lr == 0.5


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["trainer.max_steps=-1", "trainer.max_epochs=-1"], "would never end"),
        (["trainer.barebones=true"], "trainer.barebones=true disables"),
        (["trainer.precision=7"], "trainer.precision=7 is refused by Lightning: .*precision"),
    ],
)
def test_what_cannot_run_is_refused_before_data_is_loaded(
    overrides: list[str], words: str, compose_job: ComposeJob
) -> None:
    with pytest.raises(ConfigError, match=words):
        build_trainer(compose_job(*FAST, *overrides))


def test_what_nobody_measures_cannot_be_monitored(compose_job: ComposeJob) -> None:
    task = task_of(compose_job)
    trainer = build_trainer(compose_job(*FAST, "monitor.name=val/acuracy"))
    with pytest.raises(ConfigError, match=r"monitor\.name=val/acuracy is not a metric .* did you mean val/accuracy"):
        check_monitors(trainer, task)


def test_a_refusal_names_the_key_by_its_name_or_its_value_and_other_errors_pass() -> None:
    node = OmegaConf.create({"_target_": "x", "devices": 3, "strategy": "odd"})
    for message, where in (("devices is wrong.", "trainer.devices=3"), ("no odd one", "trainer.strategy=odd")):
        with pytest.raises(ConfigError) as caught, as_config_errors("trainer", node):
            raise ValueError(message)
        assert str(caught.value) == f"{where} is refused by Lightning: {message.rstrip('.')}."
    with (
        pytest.raises(ConfigError, match=r"^trainer is refused by Lightning: TypeError"),
        as_config_errors("trainer", node),
    ):
        raise TypeError
    with pytest.raises(ZeroDivisionError), as_config_errors("trainer", node):
        raise ZeroDivisionError
