"""TensorBoard event files in the run directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

from xformer.errors import ConfigError
from xformer.loggers.base import RunLogger


class TensorBoardRunLogger(TensorBoardLogger, RunLogger):
    """Lightning's TensorBoard logger; besides the metrics it logs only the configuration."""


def tensorboard_logger(
    directory: Path, config: dict[str, Any], choices: Mapping[str, str], name: str
) -> TensorBoardRunLogger:
    """Create a logger that writes below `directory`/tensorboard; `tensorboard --logdir` accepts any folder above.

    Args:
        directory: The run directory.
        config: The resolved config with secrets taken out; shown under hyper-parameters.
        choices: Config group to option; not used, because the config has them.
        name: The run's name; not used, because the directory has it.

    Raises:
        ConfigError: The package is not installed.
    """
    try:
        logger = TensorBoardRunLogger(save_dir=directory, name="tensorboard", version="", default_hp_metric=False)
    except ModuleNotFoundError as error:
        raise ConfigError(
            "logger=tensorboard needs the package tensorboard: pip install 'xformer-lab[tensorboard]'."
        ) from error
    logger.log_hyperparams(config)
    return logger
