"""One run as it was asked for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from xformer.config.redact import redact
from xformer.config.validate import nearest
from xformer.errors import ConfigError
from xformer.runs import sweep

CONFIG_FILE = "config.yaml"
"""The run's resolved configuration, in its directory."""


@dataclass(frozen=True)
class Job:
    """A composed configuration and where its results go.

    Attributes:
        config: the configuration, not yet checked.
        directory: the run directory.
        choices: group, or slot such as `decoder_attention` -> option.
        overrides: the command line's choices, as typed, without secrets.
        sweep: whether the run is one of several.
        launcher: what starts the runs of a sweep, an option of hydra/launcher.
        number: of the run in its sweep, from 0.
        varies: what is not the same in all runs of the sweep, as the command line spells it.
        name: a short name, of what was typed.
        varied: the overrides that are not the same in all runs of the sweep.
    """

    config: DictConfig
    directory: Path
    choices: dict[str, str]
    overrides: list[str]
    sweep: bool = False
    launcher: str = "basic"
    number: int = 0
    varies: tuple[str, ...] = ()

    @classmethod
    def from_hydra(cls, config: DictConfig) -> "Job":
        """Read what Hydra knows of the run, inside of `hydra.main`."""
        hydra, under_way = HydraConfig.get(), sweep.current_sweep()
        job = cls(
            config,
            Path(hydra.runtime.output_dir),
            choices(hydra.runtime.choices),
            redact(OmegaConf.to_container(hydra.overrides.task, resolve=False)),
            hydra.mode == RunMode.MULTIRUN,
            str(hydra.runtime.choices.get("hydra/launcher")),
            hydra.job.num if hydra.mode == RunMode.MULTIRUN else 0,
            under_way.varies if under_way else (),
        )
        job.apply_study_settings()
        return job

    def apply_study_settings(self) -> None:
        """Set what the study gives to an option wherever that is chosen, unless the command line says otherwise.

        Raises:
            ConfigError: the option has no such key.
        """
        study_settings = (self.config.study or {}).get("settings", {})
        typed = {override.lstrip("+~").partition("=")[0] for override in self.overrides}
        for choice, settings in study_settings.items():
            group, _, option = choice.partition("=")
            if self.choices.get(group) != option:
                continue
            for key, value in settings.items():
                if key not in self.config[group]:
                    raise ConfigError(
                        f"study.settings.{choice}.{key} is not a key of {choice}; {nearest(key, self.config[group])}"
                    )
                if f"{group}.{key}" not in typed:
                    self.config[group][key] = value

    def drop_unused(self, keys: Iterable[str]) -> None:
        """Leave out choices that this run does not use, so that its record tells only what decided it."""
        with open_dict(self.config):
            for key in keys:
                self.choices.pop(key, None)
                self.config.pop(key, None)

    @property
    def name(self) -> str:
        """What makes this run different, in a line: first what varies in its sweep, for a line may be cut."""
        first = self.varied
        return ",".join([*first, *(override for override in self.overrides if override not in first)]) or "default"

    @property
    def varied(self) -> list[str]:
        """The overrides that are not the same in all runs of the sweep."""
        return [override for override in self.overrides if override.partition("=")[0] in self.varies]


def choices(found: Mapping[str, str | None]) -> dict[str, str]:
    """Hydra's choices, without its own and those that are null, each by its key in the configuration."""
    return {
        group.rpartition("@")[2]: str(option)
        for group, option in found.items()
        if not group.startswith("hydra/") and option is not None
    }
