"""Runs of one configuration are a group; what differs between groups, found from the configurations themselves."""

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
    """Runs whose settings are equal; they differ in the seed alone."""

    settings: Mapping[str, Value]
    runs: Sequence[RecordedRun]

    def get(self, key: str) -> str:
        """A setting as text, a hybrid with its layers; `-` where the configuration has no such key."""
        return override_value(shown_choice(self.settings, key)) if key in self.settings else _ABSENT


@dataclass(frozen=True)
class Difference:
    """What tells groups apart.

    Attributes:
        named: the smallest set of keys whose values tell all groups apart.
        also: keys that differ as well and that no named choice brings with it: what is not held equal.
    """

    named: tuple[str, ...]
    also: tuple[str, ...]


def group_runs(runs: Iterable[RecordedRun]) -> list[RunGroup]:
    """Groups in the order in which their first run came."""
    found: dict[frozenset[tuple[str, Value]], list[RecordedRun]] = {}
    for run in runs:
        found.setdefault(frozenset(run.settings.items()), []).append(run)
    return [RunGroup(members[0].settings, members) for members in found.values()]


def differences(groups: Sequence[RunGroup], tuned: Iterable[str] = ()) -> Difference:
    """The smallest set of keys that tells the groups apart.

    Args:
        groups: of runs.
        tuned: keys that were chosen for each group, and so are none that tells groups apart.

    Of sets of one size, the one is taken whose keys come first in this order: choices that were typed, other choices,
    keys that were typed, other keys.
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
    brought = tuple(f"{key}." for key in named)  # a part stands for what it brings
    also = tuple(key for key in varying if key not in named and not key.startswith(brought or ("\0",)))
    implied = tuple(f"{key}." for key in also)
    return Difference(named, tuple(key for key in also if not key.startswith(implied or ("\0",))))


def _smallest(groups: Sequence[RunGroup], keys: Sequence[str]) -> tuple[str, ...]:
    distinct: dict[tuple[str, ...], str] = {}  # keys that tell the same groups apart: the first stands for all
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
    """Which groups share their values, whatever these are called."""
    numbers: dict[tuple[str, ...], int] = {}
    return tuple(str(numbers.setdefault(tuple(g.get(key) for key in keys), len(numbers))) for g in groups)


def group_name(group: RunGroup, keys: Iterable[str]) -> str:
    """`attention=linformer size=tiny`."""
    return " ".join(f"{key}={group.get(key)}" for key in keys) or "all runs"
