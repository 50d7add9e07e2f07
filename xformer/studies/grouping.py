"""Groups of runs with equal configurations, and the keys in which the groups differ."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from xformer.config.identity import Value, key_of, override_value
from xformer.config.layer_names import shown_choice
from xformer.runs.recorded_run import RecordedRun

_ABSENT = "-"
_MOST_NAMED = 4  # beyond this many keys at once, the smallest set is approached one key at a time


@dataclass(frozen=True)
class RunGroup:
    """Runs whose settings are equal except for the seed."""

    settings: Mapping[str, Value]
    runs: Sequence[RecordedRun]

    def get(self, key: str) -> str:
        """A setting as a string, a hybrid with its layers; `-` if the configuration lacks the key."""
        return override_value(shown_choice(self.settings, key)) if key in self.settings else _ABSENT


@dataclass(frozen=True)
class Difference:
    """The keys in which groups differ.

    Attributes:
        named: the smallest set of keys whose values distinguish all groups.
        also: other keys that differ and do not follow from a named choice: settings that are not held equal.
    """

    named: tuple[str, ...]
    also: tuple[str, ...]


def group_runs(runs: Iterable[RecordedRun]) -> list[RunGroup]:
    """Group runs by configuration, in the order of their first runs."""
    found: dict[frozenset[tuple[str, Value]], list[RecordedRun]] = {}
    for run in runs:
        found.setdefault(frozenset(run.settings.items()), []).append(run)
    return [RunGroup(members[0].settings, members) for members in found.values()]


def differences(groups: Sequence[RunGroup], tuned: Iterable[str] = ()) -> Difference:
    """The smallest set of keys that distinguishes the groups.

    Among sets of equal size, keys are preferred in this order: typed choices, other choices, typed keys, other keys.

    Args:
        groups: groups of runs.
        tuned: keys whose values were chosen for each group, which distinguish no groups.
    """
    if len(groups) < 2:
        return Difference(("attention",) if groups and "attention" in groups[0].settings else (), ())
    keys = dict.fromkeys(key for group in groups for key in group.settings)
    chosen = tuple(tuned)
    below = tuple(f"{key}." for key in chosen) or ("\0",)
    varying = [
        key
        for key in keys
        if key not in chosen and not key.startswith(below) and len({group.get(key) for group in groups}) > 1
    ]
    choices = {key for group in groups for run in group.runs for key in run.summary.choices}
    typed = {key_of(override) for group in groups for run in group.runs for override in run.summary.overrides}
    ranked = sorted(varying, key=lambda key: (key not in choices, key not in typed))
    named = _smallest(groups, ranked)
    brought = tuple(f"{key}." for key in named)  # a part implies the keys below it
    also = tuple(key for key in varying if key not in named and not key.startswith(brought or ("\0",)))
    implied = tuple(f"{key}." for key in also)
    return Difference(named, tuple(key for key in also if not key.startswith(implied or ("\0",))))


def _smallest(groups: Sequence[RunGroup], keys: Sequence[str]) -> tuple[str, ...]:
    distinct: dict[tuple[str, ...], str] = {}  # keys with the same partition: keep the first
    for key in keys:
        distinct.setdefault(_partition(groups, [key]), key)
    candidates = list(distinct.values())
    for size in range(1, min(_MOST_NAMED, len(candidates)) + 1):
        for chosen in itertools.combinations(candidates, size):
            if _count(groups, chosen) == len(groups):
                return chosen
    kept: tuple[str, ...] = ()
    while True:
        best = max(candidates, key=lambda key: _count(groups, (*kept, key)), default=None)
        if best is None or _count(groups, (*kept, best)) == _count(groups, kept):
            return kept
        kept += (best,)


def _count(groups: Sequence[RunGroup], keys: Iterable[str]) -> int:
    return len({tuple(group.get(key) for key in keys) for group in groups})


def _partition(groups: Sequence[RunGroup], keys: Sequence[str]) -> tuple[str, ...]:
    """The partition of the groups by equal values."""
    numbers: dict[tuple[str, ...], int] = {}
    return tuple(str(numbers.setdefault(tuple(g.get(key) for key in keys), len(numbers))) for g in groups)


def group_name(group: RunGroup, keys: Iterable[str]) -> str:
    """`attention=linformer size=tiny`."""
    return " ".join(f"{key}={group.get(key)}" for key in keys) or "all runs"
