"""One run as requested on the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from xformer.config.compose import compose_config
from xformer.config.groups import nearest
from xformer.config.identity import key_of
from xformer.config.layer_names import shown_overrides, with_layers
from xformer.config.plugins import name_plugins
from xformer.config.redact import redact
from xformer.config.tune import TunePlan, check_metric
from xformer.core.program import train_command
from xformer.errors import ConfigError
from xformer.runs import sweep
from xformer.runs.summary import TuningRole

CONFIG_FILE = "config.yaml"
"""The run's resolved configuration, in its directory."""


@dataclass(frozen=True)
class Job:
    """A composed configuration and its run directory.

    Attributes:
        config: the configuration, not yet checked.
        directory: the run directory.
        choices: group, or slot such as `decoder_attention` -> option.
        overrides: the command line's choices, as typed, without secrets.
        sweep: whether the run is one of several.
        launcher: the option of hydra/launcher that starts the runs of a sweep.
        number: the run's index in its sweep.
        varies: the keys that differ between runs of the sweep, as the command line spells them.
        name: a short name made from the typed overrides.
        varied: the overrides that differ between runs of the sweep.
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
        """Read the run's job from Hydra, inside of `hydra.main`."""
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

    @classmethod
    def compose(cls, overrides: Sequence[str]) -> "Job":
        """Compose the job of a command line without writing anything.

        Raises:
            ConfigError: Hydra refuses an override.
        """
        overrides = name_plugins(overrides)
        config = compose_config(overrides, with_hydra=True)
        chosen = choices(config.hydra.runtime.choices)
        with open_dict(config):
            del config["hydra"]
        OmegaConf.set_struct(config, True)
        job = cls(config, Path(), chosen, list(overrides))
        job.apply_study_settings()
        return job

    def apply_study_settings(self) -> None:
        """Apply `study.settings` to each option that is chosen, except keys that are set on the command line.

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

    @property
    def tuning(self) -> TuningRole | None:
        """What the run is in the tuning of its study; None where that tunes nothing.

        A run is a trial where its seed is one of those that the study tunes on.

        Raises:
            ConfigError: `study.tune` is not valid.
        """
        study = self.config.get("study")
        plain: Any = OmegaConf.to_container(study, resolve=True) if isinstance(study, DictConfig) else None
        plan = TunePlan.of(plain)
        if plan is None:
            return None
        metric = plan.metric or str(self.config.monitor.name)
        check_metric(metric, "monitor.name")
        return TuningRole(list(plan.grid), metric, self.config.seed in plan.seeds)

    @property
    def tuning_hint(self) -> str | None:
        """A sentence for a run of a study that tunes, where it is no part of the study's sweep; else None."""
        tuning = self.tuning
        if tuning is None:
            return None
        unset = [key for key in tuning.keys if key not in {key_of(override) for override in self.overrides}]
        if tuning.trial and not self.sweep:
            return f"seed={self.config.seed} is one of study.tune.seeds: this run is a trial, and is not tested."
        if unset:
            how = f"{train_command()} -m experiment={self.choices.get('experiment', 'STUDY')}"
            found = ", ".join(unset)
            return f"study.tune is not applied to this run, which has {found} of its configuration; {how} tunes it."
        return None

    @property
    def name(self) -> str:
        """The typed overrides in one line; those that vary in the sweep come first, because the line may be cut."""
        first = self.varied
        ordered = [*first, *(override for override in self.overrides if override not in first)]
        return ",".join(shown_overrides(ordered, self._hybrids)) or "default"

    @property
    def shown_choices(self) -> dict[str, str]:
        """The choices for display; a hybrid includes its layers, as in `hybrid(3xlocal+full)`."""
        return self.choices | {key: with_layers(*hybrid) for key, hybrid in self._hybrids.items()}

    @property
    def _hybrids(self) -> dict[str, tuple[str, list[Any]]]:
        nodes = {key: self.config.get(key) for key in self.choices}
        return {
            key: (self.choices[key], cast(list[Any], OmegaConf.to_container(node.layers, resolve=True)))
            for key, node in nodes.items()
            if isinstance(node, DictConfig) and isinstance(node.get("layers"), ListConfig)
        }

    @property
    def varied(self) -> list[str]:
        """The overrides that differ between runs of the sweep."""
        return [override for override in self.overrides if override.partition("=")[0] in self.varies]


def choices(found: Mapping[str, str | None]) -> dict[str, str]:
    """Hydra's choices by configuration key, without Hydra's own groups and without null choices."""
    return {
        group.rpartition("@")[2]: str(option)
        for group, option in found.items()
        if not group.startswith("hydra/") and option is not None
    }
