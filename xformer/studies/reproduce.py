"""Whether repeated runs reproduce a committed table: pass, fail or changed for each cell.

With the same code, versions and machine a cell must be bit-identical: any metric that differs fails it. Otherwise
rounding differs, and the run is like a run of another seed. Two such runs differ by a normal variable of standard
deviation s sqrt(2), with s the spread over seeds, and 99 % of such differences are within t(0.995, df) s sqrt(2). The
tolerance of a cell is that of its own group's seeds, but

- at most the one of the spread pooled over all groups, because t of few seeds is wide. If the spreads are equal,
  each of the two covers 99 %, so both cover at least 98 %;
- at least a tenth of the pooled one, because seeds that agree exactly may still differ on another machine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import special

from xformer.config.identity import override_value
from xformer.errors import DataError
from xformer.runs.provenance import git_state
from xformer.runs.recorded_run import RecordedRun
from xformer.runs.summary import plugin_line
from xformer.studies.grouping import group_runs
from xformer.studies.mixed_conditions import machine_name

_HELD = 0.99
_LEAST = 0.1  # of the pooled tolerance
_SAME = ("train/", "val/", "test/")  # metrics that are equal with the same code, versions and machine
VerdictWord = Literal["pass", "fail", "changed"]


@dataclass(frozen=True)
class Verdict:
    """The verdict on one repeated cell, and the reasons for it."""

    cell: str
    word: VerdictWord
    reasons: tuple[str, ...]


def tolerance(runs: Sequence[RecordedRun], metric: str, cell: RecordedRun) -> float:
    """The tolerance: how far a repeated cell may be from its committed value.

    Raises:
        DataError: no group has two seeds, so their spread is unknown.
    """
    known = [run for run in runs if run.value(metric) is not None]
    groups = [[float(run.value(metric) or 0.0) for run in group.runs] for group in group_runs(known)]
    if all(len(values) < 2 for values in groups):
        raise DataError(f"No cell of the committed table has two seeds with a {metric}: the tolerance is unknown.")
    pooled = _within(groups)
    of_cell = [float(run.value(metric) or 0.0) for run in known if run.settings == cell.settings]
    return max(min(_within([of_cell]), pooled), _LEAST * pooled) if len(of_cell) > 1 else pooled


def _within(groups: Sequence[Sequence[float]]) -> float:
    """The bound on 99 % of the differences between two runs of a group, with the spread pooled over all groups."""
    freedom = sum(len(values) - 1 for values in groups)
    squares = sum(float(np.var(values)) * len(values) for values in groups)
    return float(special.stdtrit(freedom, 1 - (1 - _HELD) / 2)) * math.sqrt(2 * squares / freedom)


def judge(committed: RecordedRun, repeated: RecordedRun, metric: str, allowed: float) -> Verdict:
    """Compare a cell with its committed row.

    The verdict is `changed` if the cell's configuration or data differ from the committed ones, whatever its result.
    """
    differing, elsewhere = changes(committed, repeated), environment(committed, repeated)
    word: VerdictWord
    if repeated.summary.status != committed.summary.status:
        reason = f"{repeated.summary.status} now, {committed.summary.status} then: {repeated.summary.error or ''}"
        word = "changed" if differing else "fail"
        return Verdict(committed.name, word, (reason.strip(" :"), *differing, *elsewhere))
    if differing:
        return Verdict(committed.name, "changed", (*differing, *elsewhere))
    was, now = committed.value(metric), repeated.value(metric)
    if was is None or now is None:
        word = "pass" if was is now else "fail"
        return Verdict(committed.name, word, (f"{metric}: {was} then, {now} now.",))
    others = _unequal(committed, repeated, metric)
    if was == now and not others:
        return Verdict(committed.name, "pass", (f"{metric} {now:.6g}, identical in every metric.", *elsewhere))
    reasons = f"{metric} {now:.6g}, {now - was:+.3g} from {was:.6g}; allowed is {allowed:.3g}."
    if others:
        reasons += f" Other metrics that differ: {', '.join(others)}."
    if not elsewhere:
        same = "Code, versions and machine are the same: every metric should be identical."
        return Verdict(committed.name, "fail", (reasons, same))
    return Verdict(committed.name, "pass" if abs(now - was) <= allowed else "fail", (reasons, *elsewhere))


def _unequal(committed: RecordedRun, repeated: RecordedRun, metric: str) -> list[str]:
    """The other committed metrics that differ now, except times and memory, which always differ."""
    found = {name: (was, repeated.value(name)) for name, was in committed.summary.metrics.items() if was is not None}
    of_result = {name: pair for name, pair in found.items() if name.startswith(_SAME) and name != metric}
    return [f"{name} {_short(was)} then, {_short(now)} now" for name, (was, now) in of_result.items() if was != now]


def _short(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.6g}"


def changes(committed: RecordedRun, repeated: RecordedRun) -> tuple[str, ...]:
    """The settings and data in which a repeated run differs from the committed one."""
    found = []
    if committed.whole and repeated.whole:
        for key in sorted({*committed.settings, *repeated.settings}):
            was, now = (
                override_value(run.settings[key]) if key in run.settings else "absent" for run in (committed, repeated)
            )
            if was != now:
                found.append(f"{key} was {was} and is {now}.")
    data = committed.summary.data_fingerprint, repeated.summary.data_fingerprint
    if None not in data and data[0] != data[1]:
        found.append(f"the data differs: fingerprint {data[0]} then, {data[1]} now.")
    return tuple(found)


def environment(committed: RecordedRun, repeated: RecordedRun) -> tuple[str, ...]:
    """How code, package versions and machine differ, or may differ, between two runs."""
    then, now, found = committed.summary, repeated.summary, []
    if then.git != now.git or not then.git.get("commit") or then.git.get("dirty"):
        found.append(f"code: {_code(committed)} then, {_code(repeated)} now.")
    for plugin in sorted({*then.plugins, *now.plugins}):
        was, is_now = then.plugins.get(plugin), now.plugins.get(plugin)
        if was != is_now or (is_now and is_now.get("dirty")):
            found.append(f"plugin {plugin}: {plugin_line(was)} then, {plugin_line(is_now)} now.")
    packages = sorted({*then.versions, *now.versions})
    moved = [p for p in packages if then.versions.get(p) != now.versions.get(p)]
    if moved:
        listed = ", ".join(f"{p} {then.versions.get(p)} -> {now.versions.get(p)}" for p in moved)
        found.append(f"versions: {listed}.")
    if machine_name(committed) != machine_name(repeated):
        found.append(f"machine: {machine_name(committed)} then, {machine_name(repeated)} now.")
    if now.hardware.get("cuda") and repeated.settings.get("trainer.deterministic") is not True:
        found.append("kernels: without trainer.deterministic=true, GPU kernels may sum in a different order each time.")
    return tuple(found)


def environment_changes(logged: RecordedRun) -> str | None:
    """How to check out the commit of a logged run; None if it is checked out already."""
    then, now = logged.summary.git.get("commit"), git_state(Path(__file__).parent)["commit"]
    if then is None or then == now:
        return None
    return f"The run used commit {then}; {now or 'no commit'} is checked out. Its code: git checkout {then[:10]}."


def _code(run: RecordedRun) -> str:
    git = run.summary.git
    return f"{(git.get('commit') or 'unknown')[:10]}{' with changes' if git.get('dirty') else ''}"
