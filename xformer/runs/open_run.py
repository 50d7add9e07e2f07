"""Opening a finished run from its directory: its model, its tokenizer and its data specification."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor
from yaml import YAMLError  # type: ignore[import-untyped]

from xformer.config.groups import CONF, option_files
from xformer.config.options import with_current_targets
from xformer.config.plan import Plan
from xformer.config.plugins import cached_by_plugins, require_plugins
from xformer.config.validate import validate
from xformer.data.base import DataModule
from xformer.errors import ConfigError, DataError
from xformer.runs import checkpoints
from xformer.runs.job import CONFIG_FILE
from xformer.runs.summary import Summary, read_summary
from xformer.tasks.base import Task
from xformer.tokenizers.base import Tokenised

_TRAINING_ALONE = ("callbacks", "logger")
"""Groups that do not affect a trained model and may refer to variables that only the training machine has."""
_ENDED = {
    "failed": "failed",
    "interrupted": "was interrupted",
    "running": "has not ended",
    "skipped": "was skipped",
}
_TOKEN_TABLE = "model.embedding.weight"


@dataclass(frozen=True)
class OpenedRun:
    """A finished run.

    Attributes:
        directory: the run directory.
        config: the resolved configuration.
        summary: the run's summary.
        checkpoint: the file that the weights were loaded from.
        data: the data module, with its spec, `encode` and `decode`; no data is loaded.
        task: the trained model, in evaluation mode.
    """

    directory: Path
    config: DictConfig
    summary: Summary
    checkpoint: Path
    data: DataModule
    task: Task

    def encode(self, text: str) -> Int[Tensor, "1 tokens"]:
        """Token ids of a text, on the model's device.

        Raises:
            DataError: the run's data has no text form, or the text does not have that form.
        """
        return torch.as_tensor(self.data.encode(text), dtype=torch.long, device=self.task.device)[None]

    @torch.no_grad()
    def logits(self, *inputs: str | Tensor | None) -> Float[Tensor, "..."]:
        """The logits of one forward pass: (1 classes) of a classifier, (1 length vocabulary) of a language model.

        Args:
            inputs: the arguments of the task's `forward`; a text is encoded to token ids.

        Raises:
            DataError: a text does not have the form of the run's data, or a sequence is too long for the model.
            ConfigError: the number of inputs does not match `forward`.
        """
        takes = inspect.signature(self.task.forward)
        try:
            takes.bind(*inputs)
        except TypeError as error:
            names = ", ".join(takes.parameters)
            raise ConfigError(
                f"{type(self.task).__name__} takes ({names}), not {len(inputs)} inputs: {error}."
            ) from error
        logits: Tensor = self.task(*(self.encode(each) if isinstance(each, str) else each for each in inputs))
        return logits


def open_run(directory: Path | str) -> OpenedRun:
    """Rebuild a run's model and load its best weights, or the newest if the best are unknown.

    Only classes that an option of ours or of a plugin names are instantiated, and weights are read with `weights_only`:
    a directory from elsewhere can run only code of plugins that are installed and named here.

    Raises:
        DataError: the directory has no finished run or no readable checkpoint of this model and vocabulary.
        ConfigError: the configuration is not valid in this version, or a plugin of the run is not installed and named.
    """
    directory = Path(directory)
    summary = finished_summary(directory)
    require_plugins(summary.plugins, str(directory))
    config = read_config(directory)
    plan = Plan.of(config)
    plan.data.restore(directory)
    _check_tokenizer(plan.data, directory)
    task = plan.build_task()
    checkpoint, weights = best_weights(directory, summary)
    _check_shapes(task, weights, checkpoint)
    task.load_state_dict(weights)
    return OpenedRun(directory, config, summary, checkpoint, plan.data, task.eval())


def finished_summary(directory: Path) -> Summary:
    """The summary of a finished run.

    Raises:
        DataError: the directory has no finished run.
    """
    if not directory.is_dir():
        raise DataError(f"{directory} is not a directory; name a run directory, such as outputs/DATE/TIME.")
    summary = read_summary(directory)
    if summary.status != "finished":
        why = (summary.error or "unknown reason").rstrip(".")
        raise DataError(f"{directory} holds a run that {_ENDED[summary.status]} ({why}); name a finished run.")
    return summary


def read_config(directory: Path) -> DictConfig:
    """The run's validated configuration, with today's classes and without the groups that only training needs.

    Raises:
        DataError: the configuration or the summary is missing, or the configuration is not YAML.
        ConfigError: the configuration is not valid.
    """
    path = directory / CONFIG_FILE
    try:
        config = OmegaConf.load(path)
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({str(error).splitlines()[0]}): train the run again.") from error
    if not isinstance(config, DictConfig):
        raise DataError(f"{path} is not a configuration: train the run again.")
    for key in _TRAINING_ALONE:
        config.pop(key, None)
    if OmegaConf.is_interpolation(config, "cache"):  # of an environment variable, without a default
        config.cache = OmegaConf.load(CONF / "train.yaml").cache
    try:
        # Resolve first, so that the check below sees the values that would be instantiated.
        plain: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise DataError(f"{path} cannot be resolved ({str(error).splitlines()[0]}): train the run again.") from error
    config = OmegaConf.create(with_current_targets(plain, read_summary(directory)))
    check_targets(config, str(path))
    validate(config)
    return config


def check_targets(config: DictConfig, source: str) -> None:
    """Refuse a resolved configuration that would instantiate a class that no option in `conf/` names.

    Raises:
        ConfigError: naming the target and the source of the configuration.
    """
    for node in _targets(config):
        if str(node._target_) not in _shipped():
            raise ConfigError(
                f"{source}: _target_={node._target_} is not of an option in conf/; nothing else is instantiated."
            )


@cached_by_plugins
def _shipped() -> frozenset[str]:
    """The targets of all options; a whole module is not trusted, because it may import dangerous functions."""
    files = map(OmegaConf.load, (CONF / "train.yaml", *option_files()))
    return frozenset(str(node._target_) for file in files for node in _targets(file))


def _targets(node: Any) -> Iterator[DictConfig]:
    """Every node that would be instantiated, at any depth."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield node
        for key in node:
            yield from _targets(node._get_node(key))
    elif OmegaConf.is_list(node):
        for index in range(len(node)):
            yield from _targets(node._get_node(index))


def best_weights(directory: Path, summary: Summary) -> tuple[Path, dict[str, Tensor]]:
    """The checkpoint of the best step, else the newest, and its weights, read with `weights_only`.

    Raises:
        DataError: no checkpoint is readable.
    """
    best = None if summary.monitor is None else summary.monitor.step
    newest = None
    for file, content in checkpoints.readable_checkpoints(directory):
        if content.get("global_step") == best:
            return file, content["state_dict"]
        newest = newest or (file, content["state_dict"])
    if newest is None:
        raise DataError(
            f"{directory} has no readable checkpoint in {checkpoints.FOLDER}/: train the run again, with "
            "trainer.enable_checkpointing=true."
        )
    return newest


def _check_tokenizer(data: DataModule, directory: Path) -> None:
    if isinstance(data, Tokenised) and data.tokenizer.vocabulary > data.spec.vocabulary:
        raise DataError(
            f"{directory} has a tokenizer of {data.tokenizer.vocabulary:,} ids, but its model was trained with "
            f"{data.spec.vocabulary:,}: put back the run's own tokenizer.json."
        )


def _check_shapes(task: Task, weights: dict[str, Tensor], checkpoint: Path) -> None:
    expected = task.state_dict()
    for name, tensor in expected.items():
        if name not in weights:
            raise DataError(f"{checkpoint} lacks {name}, which config.yaml describes: it belongs to another model.")
        found = weights[name]
        if name == _TOKEN_TABLE and len(found) != len(tensor):
            raise DataError(
                f"{checkpoint} has a vocabulary of {len(found):,} ids, and the run's data.json one of {len(tensor):,}: "
                "put back the files that belong together."
            )
        if found.shape != tensor.shape:
            raise DataError(
                f"{checkpoint} has {name} of shape {tuple(found.shape)}, and the run's config.yaml and data.json "
                f"describe {tuple(tensor.shape)}: put back the files that belong together."
            )
    unknown = next((name for name in weights if name not in expected), None)
    if unknown is not None:
        raise DataError(
            f"{checkpoint} has {unknown}, which config.yaml does not describe: it belongs to another model."
        )
