"""The plan of a run: a checked configuration whose parts are factories that need only the data."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from omegaconf import DictConfig, open_dict

from xformer.architecture.base import ArchitectureFactory
from xformer.config import compatibility
from xformer.config.entries import shorten_layers
from xformer.config.match import Matched
from xformer.config.validate import instantiate_node, validate
from xformer.data.base import DataModule
from xformer.data.configs import DataContext
from xformer.errors import ConfigError
from xformer.layers.initialise import initialise
from xformer.optimization.optimizer import OptimizerFactory
from xformer.optimization.schedule import Schedule
from xformer.tasks.base import Task

GRAPHS = "reduce-overhead"
"""The value of `compile` that records CUDA graphs."""


@dataclass(frozen=True)
class Plan:
    """The parts of a configuration as factories, which are called once the data are loaded.

    Attributes:
        config: the configuration.
        data: the data module, not loaded yet.
        architecture: builds the model.
        optimizer: builds the optimiser.
        schedule: the schedule of the learning rate.
        task: builds the task from these.
        seed: the seed of the initial values and of the order of the data.
        matched: how the model's size was adjusted (`xformer.training.matching`).
    """

    config: DictConfig
    data: DataModule
    architecture: ArchitectureFactory
    optimizer: OptimizerFactory
    schedule: Schedule
    task: Callable[..., Task]
    seed: int
    matched: Matched | None = None

    @classmethod
    def read(cls, config: DictConfig, choices: dict[str, str]) -> "Plan":
        """Check the whole configuration, and return the plan of what to build.

        Args:
            config: the composed configuration; slots that the architecture lacks are removed from it.
            choices: the option chosen in each group and slot; reduced likewise.

        Raises:
            ConfigError: a key, a value or a combination is not valid.
            IncompatibleError: choices are incompatible.
        """
        validate(config)
        compatibility.check_compatibility(config, choices)
        refuse_compilation(config)
        shorten_layers(config)
        with open_dict(config):
            for slot in compatibility.unused_slots(config):
                config.pop(slot, None)
                choices.pop(slot, None)
        return cls.of(config)

    @classmethod
    def of(cls, config: DictConfig) -> "Plan":
        """Instantiate every part of a valid configuration; a value that a class rejects raises here.

        Raises:
            ConfigError: a class refuses a value.
        """
        architecture, optimizer, schedule, task = (
            instantiate_node(config[group]) for group in ("architecture", "optimizer", "schedule", "task")
        )
        # Called twice in every step, where Hydra would check each time anew what a partial of its own may call.
        schedule = partial(schedule.func, *schedule.args, **schedule.keywords)
        data = instantiate_node(config.data)(DataContext(config.seed, Path(config.cache)))
        return cls(config, data, architecture, optimizer, schedule, task, config.seed)

    def load_data(self) -> DataModule:
        """Build, prepare and load the data module, so that its vocabulary is known."""
        self.data.prepare_data()
        self.data.setup("fit")
        return self.data

    def build_task(self) -> Task:
        """Build the task with its model, initialised from the seed."""
        task = self.task(self.data.spec, self.architecture, self.optimizer, self.schedule)
        initialise(task, self.seed)
        return task


def refuse_compilation(config: DictConfig) -> None:
    """Refuse settings that CUDA graphs do not support, before data is loaded.

    Raises:
        ConfigError: gradients are accumulated, or the number of sequences changes.
    """
    if config.compile != GRAPHS:
        return
    accumulated = config.trainer.accumulate_grad_batches
    if accumulated != 1:
        raise ConfigError(
            f"trainer.accumulate_grad_batches={accumulated} does not go with compile={GRAPHS}: a replayed CUDA graph "
            "overwrites the gradients that are held; compile=true would work."
        )
    if config.data.loader.get("tokens_per_batch") is not None:
        raise ConfigError(
            f"data.loader.tokens_per_batch={config.data.loader.tokens_per_batch} does not go with compile={GRAPHS}: a "
            "CUDA graph is recorded for one number of sequences; compile=true, or data.loader.batch_size, would work."
        )
