"""The `tune` block of a study: which settings are tuned for each variant, from which values, on which seeds."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xformer.config.identity import Value, override_value
from xformer.errors import ConfigError

_OPTIONS = ("seeds", "metric")
_EXAMPLE = "such as optimizer.lr: [1.0e-3, 3.0e-3, 1.0e-2]"
SPLIT = "val/"
"""The prefix of a metric that settings may be chosen by: test values are read once, at the end."""


@dataclass(frozen=True)
class TunePlan:
    """What a study tunes for each of its variants, before the final runs.

    Attributes:
        grid: the values of each tuned key; the trials are their product.
        seeds: of the trials; no final run may have one of them.
        metric: the validation metric that decides; None for the monitored one.
    """

    grid: Mapping[str, tuple[Value, ...]]
    seeds: tuple[int, ...]
    metric: str | None = None

    @classmethod
    def of(cls, study: Mapping[str, Any] | None) -> "TunePlan | None":
        """Read the block of a study; None where there is none.

        Args:
            study: its keys and values, as plain containers.

        Raises:
            ConfigError: something in it is not valid; the sentence names the key and the value.
        """
        node = (study or {}).get("tune")
        if node is None:
            return None
        if not isinstance(node, Mapping):
            raise ConfigError(f"study.tune={node} has to be a mapping of keys to lists of values, {_EXAMPLE}.")
        found = {key: value for key, value in node.items() if key not in _OPTIONS}
        grid = {key: _values(key, values) for key, values in _flat(found).items()}
        if not grid:
            raise ConfigError(f"study.tune names nothing to tune; add a key and its values, {_EXAMPLE}.")
        metric = node.get("metric")
        if metric is not None:
            check_metric(str(metric), "study.tune.metric")
        return cls(grid, _seeds(node.get("seeds")), None if metric is None else str(metric))

    @property
    def settings(self) -> list[dict[str, Value]]:
        """Every combination of values: one for each trial of a variant and a seed."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]

    @property
    def trials(self) -> list[list[str]]:
        """The overrides of every trial of a variant: each combination of values with each seed."""
        return [
            [*(f"{key}={override_value(value)}" for key, value in setting.items()), f"seed={seed}"]
            for setting in self.settings
            for seed in self.seeds
        ]

    def refuse_final_seeds(self, seeds: Iterable[int]) -> None:
        """Refuse a seed that both trials and final runs have: what was chosen on it would look better than it is.

        Raises:
            ConfigError: naming the seeds.
        """
        final = {*seeds}
        both = [seed for seed in self.seeds if seed in final]
        if both:
            raise ConfigError(
                f"study.tune.seeds={list(self.seeds)} has {', '.join(map(str, both))}, which is also a seed of final "
                f"runs; use others, such as {[max(final) + 100 + index for index in range(len(self.seeds))]}."
            )


def check_metric(name: str, key: str) -> None:
    """Refuse to choose settings by anything but a validation metric.

    Args:
        name: of the metric.
        key: the key it was set by, for the message.

    Raises:
        ConfigError: naming the key and the metric.
    """
    if not name.startswith(SPLIT):
        raise ConfigError(
            f"{key}={name} is no validation metric, and settings are chosen by one; use study.tune.metric=val/loss or "
            "another that begins with val/."
        )


def _flat(node: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones: `optimizer: {lr: [...]}` is `optimizer.lr: [...]`."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        name = f"{path}{key}"
        found |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def _values(key: str, values: Any) -> tuple[Value, ...]:
    if key == "seed":
        raise ConfigError("study.tune.seed cannot be tuned; the seeds of the trials are study.tune.seeds.")
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise ConfigError(f"study.tune.{key}={values} has to be a list of values, {_EXAMPLE}.")
    if len(values) < 2:
        raise ConfigError(f"study.tune.{key}={list(values)} leaves nothing to choose; list two values or more.")
    wrong = [value for value in values if value is not None and not isinstance(value, str | int | float | bool)]
    if wrong:
        raise ConfigError(f"study.tune.{key} has {wrong[0]}; use numbers, names, true, false or null.")
    texts = [override_value(value) for value in values]
    twice = [text for text in texts if texts.count(text) > 1]
    if twice:
        raise ConfigError(f"study.tune.{key}={list(values)} has {twice[0]} twice; list each value once.")
    return tuple(values)


def _seeds(seeds: Any) -> tuple[int, ...]:
    wanted = "distinct whole numbers from 0 that no final run has, such as seeds: [100, 101]"
    if seeds is None:
        raise ConfigError(f"study.tune lacks seeds: {wanted}.")
    whole = isinstance(seeds, Sequence) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not whole or not seeds or len({*seeds}) < len(seeds):
        raise ConfigError(f"study.tune.seeds={seeds} has to be {wanted}.")
    return tuple(seeds)
