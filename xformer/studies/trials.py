"""Trials of a study's tuning, and the setting that they choose for each variant.

The rule: of a variant's settings, the one with the best mean of a validation metric over the tuning seeds. A setting
that diverged on one of them (a loss, a parameter or the metric was not finite) is never chosen, and one with a trial
that has not finished is not chosen yet. Of equal means the lowest values win, numbers before names. The choice
follows from the recorded trials alone, in any order, so a committed table holds all that is needed to make it again.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from xformer.config.groups import nearest
from xformer.config.identity import Value, key_of, override_value, reproducing_overrides
from xformer.errors import ConfigError, DataError
from xformer.runs.recorded_run import RecordedRun
from xformer.studies.metric import Metric

Variant = frozenset[str]
"""The overrides of a variant, without the tuned keys and the seed."""
_OF_ALL = {"seed", "on_incompatible"}


@dataclass(frozen=True)
class TrialSetting:
    """One setting of the tuned keys and its trials.

    Attributes:
        values: of the tuned keys.
        scores: tuning seed to the metric; None where the trial diverged.
        unfinished: tuning seed to the reason why its trial gave no value yet.
    """

    values: Mapping[str, Value]
    scores: Mapping[int | None, float | None]
    unfinished: Mapping[int | None, str]

    @property
    def diverged(self) -> bool:
        """Whether one of its trials diverged."""
        return None in self.scores.values()

    @property
    def mean(self) -> float | None:
        """The mean of the metric over the tuning seeds; None where a trial diverged, or none has a value."""
        values = [value for value in self.scores.values() if value is not None]
        return None if self.diverged or not values else math.fsum(values) / len(values)

    @property
    def name(self) -> str:
        """`optimizer.lr=0.003`."""
        return setting_name(self.values)


@dataclass(frozen=True)
class TunedVariant:
    """The trials of one variant, and what they choose.

    Attributes:
        name: its overrides.
        settings: all that were tried, by their values.
        chosen: the best one; None where there is none yet, or all diverged.
    """

    name: str
    settings: Sequence[TrialSetting]
    chosen: TrialSetting | None

    @property
    def trials(self) -> int:
        """How many trials have ended."""
        return sum(len(setting.scores) for setting in self.settings)

    @property
    def seeds(self) -> list[int | None]:
        """The tuning seeds."""
        return sorted({seed for s in self.settings for seed in (*s.scores, *s.unfinished)}, key=lambda seed: seed or 0)

    @property
    def tried(self) -> frozenset[tuple[str, int | None]]:
        """The trials that have ended, each as its setting and its seed."""
        return frozenset((setting.name, seed) for setting in self.settings for seed in setting.scores)

    def edges(self) -> dict[str, tuple[str, list[float]]]:
        """The numeric keys whose chosen value is the lowest or the highest that was tried: which, and all values."""
        found = {}
        for key, value in self.chosen.values.items() if self.chosen else ():
            tried = [setting.values[key] for setting in self.settings]
            numbers = sorted({float(v) for v in tried if isinstance(v, int | float) and not isinstance(v, bool)})
            if len({*tried}) == len(numbers) > 1 and value in (numbers[0], numbers[-1]):
                found[key] = ("lowest" if value == numbers[0] else "highest", numbers)
        return found


@dataclass(frozen=True)
class Tuning:
    """What was tuned, and what was chosen for each variant.

    Attributes:
        keys: the tuned settings.
        metric: the validation metric that decided.
        variants: each with its trials.
    """

    keys: tuple[str, ...]
    metric: Metric
    variants: Mapping[Variant, TunedVariant]

    def variant(self, run: RecordedRun) -> TunedVariant | None:
        """The trials of a run's variant; None where it has none."""
        return self.variants.get(variant_of(run.summary.overrides, self.keys))

    def without_superseded(self, runs: Iterable[RecordedRun]) -> tuple[list[RecordedRun], dict[str, str]]:
        """Final runs with the chosen setting of their variant, and why each other one is left out."""
        kept, left_out = [], {}
        for run in runs:
            variant = self.variant(run)
            chosen = variant.chosen if variant else None
            now = setting_name(_values(run, self.keys))
            if variant is None or (chosen is not None and chosen.name == now):
                kept.append(run)
            elif run.summary.status != "skipped":
                best = f"they choose {chosen.name}" if chosen else "they choose none"
                left_out[run.name] = f"it has {now}, and the trials of {variant.name} do not choose that: {best}."
        return kept, left_out


def tuning_of(runs: Sequence[RecordedRun]) -> Tuning | None:
    """What the trials among some runs choose; None where there are none.

    Raises:
        DataError: the trials are of different tunings.
        ConfigError: no trial has the metric that decides.
    """
    trials = [run for run in runs if run.summary.is_trial and run.summary.status != "skipped"]
    if not trials:
        return None
    plans = {(tuple(role.keys), role.metric): None for run in trials if (role := run.summary.tuning)}
    if len(plans) > 1:
        named = "; ".join(f"{', '.join(keys)} by {metric}" for keys, metric in plans)
        raise DataError(f"The trials tune different settings, or by different metrics ({named}): compare them apart.")
    keys, name = next(iter(plans))
    known = dict.fromkeys(metric for run in trials for metric in run.summary.metrics)
    if known and name not in known:
        raise ConfigError(f"study.tune.metric={name} is in no trial; {nearest(name, known)}")
    metric = Metric.of(trials, name) if known else Metric(name, "min")
    found: dict[Variant, list[RecordedRun]] = {}
    for run in trials:
        found.setdefault(variant_of(run.summary.overrides, keys), []).append(run)
    return Tuning(keys, metric, {variant: _tuned(members, keys, metric) for variant, members in found.items()})


def variant_of(overrides: Iterable[str], keys: Iterable[str]) -> Variant:
    """The overrides that make a variant: all that decide its result, but for the tuned keys and the seed."""
    apart = {*keys} | _OF_ALL
    return frozenset(override for override in reproducing_overrides(overrides) if key_of(override) not in apart)


def variant_name(overrides: Iterable[str], keys: Iterable[str]) -> str:
    """The overrides of a variant in the order in which they were typed: `attention=full`."""
    overrides = [override for override in overrides if key_of(override) != "experiment"]
    wanted = variant_of(overrides, keys)
    return " ".join(override for override in overrides if override in wanted) or "the variant"


def setting_name(values: Mapping[str, Value]) -> str:
    """`optimizer.lr=0.003 optimizer.weight_decay=0`."""
    return " ".join(f"{key}={override_value(value)}" for key, value in values.items())


def choose(settings: Iterable[TrialSetting], metric: Metric) -> TrialSetting | None:
    """The setting with the best mean, as the rule above has it; None where none can be chosen.

    Args:
        settings: of one variant.
        metric: that decides.
    """
    settings = list(settings)
    seeds = {seed for setting in settings for seed in (*setting.scores, *setting.unfinished)}
    sign = -1 if metric.mode == "max" else 1
    able = [(sign * mean, s) for s in settings if (mean := s.mean) is not None and {*s.scores} == seeds]
    return min(able, key=lambda pair: (pair[0], _order(pair[1])), default=(0.0, None))[1]


def _tuned(trials: Sequence[RecordedRun], keys: Sequence[str], metric: Metric) -> TunedVariant:
    by_setting: dict[str, list[RecordedRun]] = {}
    for run in trials:
        by_setting.setdefault(setting_name(_values(run, keys)), []).append(run)
    settings = sorted((_setting(members, keys, metric) for members in by_setting.values()), key=_order)
    return TunedVariant(variant_name(trials[0].summary.overrides, keys), settings, choose(settings, metric))


def _setting(trials: Sequence[RecordedRun], keys: Sequence[str], metric: Metric) -> TrialSetting:
    ended = {run.seed: run.value(metric.name) for run in trials if _has_ended(run)}
    unfinished = {
        run.seed: f"{run.summary.status}: {run.summary.error or 'no reason was recorded.'}"
        for run in trials
        if run.seed not in ended
    }
    return TrialSetting(_values(trials[0], keys), dict(sorted(ended.items(), key=lambda p: p[0] or 0)), unfinished)


def _has_ended(run: RecordedRun) -> bool:
    return run.summary.status == "finished" or run.summary.diverged


def _values(run: RecordedRun, keys: Iterable[str]) -> dict[str, Value]:
    """A run's values of the tuned keys."""
    return {key: _number(run.settings.get(key)) for key in keys}


def _number(value: Value) -> Value:
    """A value; a number that was read as a text, as YAML reads 1e-05, as the number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _order(setting: TrialSetting) -> list[tuple[bool, float, str]]:
    """Sorts numbers by value, then names."""
    return [
        (False, float(value), "") if isinstance(value, int | float) else (True, 0.0, str(value))
        for value in setting.values.values()
    ]
