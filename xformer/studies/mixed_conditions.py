"""Warnings where compared runs differ in code, package versions, data or machine."""

from collections.abc import Iterable, Sequence

from xformer.runs.recorded_run import RecordedRun
from xformer.runs.summary import plugin_line


def mixed_conditions(runs: Sequence[RecordedRun]) -> list[str]:
    """A warning for each way in which the runs differ in code, package versions, data or machine."""
    summaries = [run.summary for run in runs]
    found = []
    commits = _distinct(str(s.git["commit"]) for s in summaries if s.git.get("commit") is not None)
    if len(commits) > 1:
        found.append(f"the runs come from {len(commits)} commits: {', '.join(commit[:10] for commit in commits)}.")
    dirty = sum(bool(s.git.get("dirty")) for s in summaries)
    if dirty:
        found.append(f"{dirty} of {len(runs)} runs were started from code with uncommitted changes.")
    for package in _distinct(name for s in summaries for name in s.versions):
        versions = _distinct(s.versions.get(package) for s in summaries)
        if len(versions) > 1:
            found.append(f"the runs used several versions of {package}: {', '.join(versions)}.")
    for plugin in _distinct(name for s in summaries for name in s.plugins):
        states = _distinct(plugin_line(s.plugins[plugin]) for s in summaries if plugin in s.plugins)
        if len(states) > 1:
            found.append(f"the runs used several versions of the plugin {plugin}: {', '.join(states)}.")
    machines = _distinct(machine_name(run) for run in runs)
    if len(machines) > 1:
        found.append(f"the runs come from different machines: {'; '.join(machines)}.")
    return found + _mixed_data(runs)


def machine_name(run: RecordedRun) -> str | None:
    """The hardware that affects numbers and time: accelerators or processor, cores and threads."""
    found = run.summary.hardware
    if not found:
        return None
    cards = found.get("cuda")
    device = ", ".join(map(str, cards)) if isinstance(cards, list) and cards else found.get("cpu")
    return f"{device}, {found.get('cores')} cores, {found.get('torch_threads')} threads"


def _mixed_data(runs: Sequence[RecordedRun]) -> list[str]:
    """A warning for each data configuration whose runs read different data."""
    fingerprints: dict[tuple[object, ...], set[str]] = {}
    for run in runs:
        asked = {k: v for k, v in run.settings.items() if k.partition(".")[0] in ("data", "tokenizer")}
        if run.summary.data_fingerprint:
            fingerprints.setdefault(tuple(sorted(asked.items())), set()).add(run.summary.data_fingerprint)
    several = [sorted(read) for read in fingerprints.values() if len(read) > 1]
    return [f"runs of one data configuration read different data: fingerprints {', '.join(read)}." for read in several]


def _distinct(values: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(value for value in values if value is not None))
