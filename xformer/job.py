"""One run as it was asked for."""

from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig


@dataclass(frozen=True)
class Job:
    """A composed configuration and where its results go.

    Attributes:
        config: the configuration, not yet checked.
        directory: the run directory.
        choices: group -> option.
        overrides: the command line's choices, as typed.
        sweep: whether the run is one of several.
        name: a short name, of what was typed.
    """

    config: DictConfig
    directory: Path
    choices: dict[str, str]
    overrides: list[str]
    sweep: bool = False

    @classmethod
    def from_hydra(cls, config: DictConfig) -> "Job":
        """Read what Hydra knows of the run, inside of `hydra.main`."""
        hydra = HydraConfig.get()
        choices = {
            group: str(option)
            for group, option in hydra.runtime.choices.items()
            if not group.startswith("hydra/") and option is not None
        }
        return cls(
            config, Path(hydra.runtime.output_dir), choices, list(hydra.overrides.task), hydra.mode == RunMode.MULTIRUN
        )

    @property
    def name(self) -> str:
        """What makes this run different, in a line."""
        return ",".join(self.overrides) or "default"
