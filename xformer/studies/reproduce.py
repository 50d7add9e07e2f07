"""Whether repeated runs reproduce a committed table: pass, fail or changed for each cell.

Where code, versions and machine are the same, a cell is bit-identical: whatever metric is another number fails it.
Elsewhere rounding differs, and a run becomes what another seed would have made of it. Two such runs differ by a normal
variable of standard deviation s sqrt(2), with s the spread over seeds, and 99 % of such differences are within
t(0.995, df) s sqrt(2). A cell is allowed that of its own group's seeds, but

- no more than that of the spread pooled over all groups, because t of few seeds is wide. Where the spreads are equal
  each of the two holds 99 %, so both hold 98 % at least;
- no less than a tenth of it, because seeds that all gave one number do not show that another machine will.
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
from xformer.runs.git_state import git_state
from xformer.runs.recorded_run import RecordedRun
from xformer.runs.summary import plugin_line
from xformer.studies.grouping import group_runs
from xformer.studies.mixed_conditions import machine_name

_HELD = 0.99
_LEAST = 0.1  # of the pooled tolerance
_SAME = ("train/", "val/", "test/")  # what is one number wherever code, versions and machine are
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
        DataError: no group has two seeds, so that nothing is known of their spread.
    """
    known = [run for run in runs if run.value(metric) is not None]
    groups = [[float(run.value(metric) or 0.0) for run in group.runs] for group in group_runs(known)]
    if all(len(values) < 2 for values in groups):
        raise DataError(f"No cell of the committed table has two seeds with a {metric}: no tolerance can be stated.")
    pooled = _within(groups)
    of_cell = [float(run.value(metric) or 0.0) for run in known if run.settings == cell.settings]
    return max(min(_within([of_cell]), pooled), _LEAST * pooled) if len(of_cell) > 1 else pooled


def _within(groups: Sequence[Sequence[float]]) -> float:
    """What holds 99 % of the differences between two runs of a group, whose spread is that of all groups."""
    freedom = sum(len(values) - 1 for values in groups)
    squares = sum(float(np.var(values)) * len(values) for values in groups)
    return float(special.stdtrit(freedom, 1 - (1 - _HELD) / 2)) * math.sqrt(2 * squares / freedom)


def judge(committed: RecordedRun, repeated: RecordedRun, metric: str, allowed: float) -> Verdict:
    """Compare a cell with its committed row.

    `changed` is a cell whose configuration or data is not the committed one, whatever came out of it.
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
        reasons += f" Not identical: {', '.join(others)}."
    if not elsewhere:
        same = "Code, versions and machine are the same: every metric should be identical."
        return Verdict(committed.name, "fail", (reasons, same))
    return Verdict(committed.name, "pass" if abs(now - was) <= allowed else "fail", (reasons, *elsewhere))


def _unequal(committed: RecordedRun, repeated: RecordedRun, metric: str) -> list[str]:
    """The other committed metrics that are another number now; times and memory are never the same."""
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
        found.append(f"the data is not the same: fingerprint {data[0]} then, {data[1]} now.")
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
        found.append("kernels: those of a GPU may add in another order each time, without trainer.deterministic=true.")
    return tuple(found)


def environment_changes(logged: RecordedRun) -> str | None:
    """How to check out the commit of a logged run; None where it is checked out already."""
    then, now = logged.summary.git.get("commit"), git_state(Path(__file__).parent)["commit"]
    if then is None or then == now:
        return None
    return f"It ran at commit {then}, and {now or 'no commit'} is checked out: git checkout {then[:10]} is its code."


def _code(run: RecordedRun) -> str:
    git = run.summary.git
    return f"{(git.get('commit') or 'unknown')[:10]}{' with changes' if git.get('dirty') else ''}"
