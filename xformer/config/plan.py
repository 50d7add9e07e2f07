"""From a valid configuration to data and model: every part as a factory that waits for the data."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from xformer.architecture.base import ArchitectureFactory
from xformer.config.validate import instantiate_node
from xformer.data.base import DataModule
from xformer.layers.initialise import initialise
from xformer.optimization.optimizer import OptimizerFactory
from xformer.optimization.schedule import Schedule
from xformer.tasks.base import Task


@dataclass(frozen=True)
class Plan:
    """Everything a configuration says, as factories that wait for the data."""

    data: DataModule
    architecture: ArchitectureFactory
    optimizer: OptimizerFactory
    schedule: Schedule
    task: Callable[..., Task]
    seed: int

    @classmethod
    def of(cls, config: DictConfig) -> "Plan":
        """Instantiate every part; nothing is loaded yet, and a bad value is refused here.

        Raises:
            ConfigError: a value that its class refuses.
        """
        architecture, optimizer, schedule, task = (
            instantiate_node(config[group]) for group in ("architecture", "optimizer", "schedule", "task")
        )
        # Called twice in every step, where Hydra would check each time anew what a partial of its own may call.
        schedule = partial(schedule.func, *schedule.args, **schedule.keywords)
        data = instantiate_node(config.data)(config.seed, Path(config.cache))
        return cls(data, architecture, optimizer, schedule, task, config.seed)

    def load_data(self) -> DataModule:
        """The data module, prepared and loaded, so that it can tell its vocabulary."""
        self.data.prepare_data()
        self.data.setup("fit")
        return self.data

    def build_task(self) -> Task:
        """The task with its model, initialised from the seed."""
        task = self.task(self.data.facts, self.architecture, self.optimizer, self.schedule)
        initialise(task, self.seed)
        return task
