import importlib
import sys
from pathlib import Path

import pytest

from xformer.errors import ConfigError
from xformer.loggers.tensorboard import tensorboard_logger


def test_metrics_and_config_reach_the_event_file(tmp_path: Path) -> None:
    event_accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    logger = tensorboard_logger(tmp_path, {"model": {"width": 4}}, {"attention": "full"}, "name")
    logger.log_metrics({"train/loss": 0.5}, step=3)
    logger.finalize("success")
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (event,) = events.Scalars("train/loss")
    assert (event.step, event.value) == (3, 0.5)
    assert "width: 4" in (tmp_path / "tensorboard" / "hparams.yaml").read_text()


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object, **options: object) -> None:
        raise ModuleNotFoundError("tensorboard")

    monkeypatch.setattr(sys.modules["xformer.loggers.tensorboard"], "TensorBoardRunLogger", missing)
    with pytest.raises(ConfigError, match="pip install"):
        tensorboard_logger(tmp_path, {}, {}, "name")
