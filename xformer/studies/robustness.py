"""Whether the verdicts of a study hold where one of its fixed settings is changed: another size, length, batch or data.

Each changed setting is a comparison of its own: the study's grid and seeds, with one key at another value.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xformer.config.groups import nearest
from xformer.config.identity import key_of, override_value, reproducing_overrides
from xformer.errors import ConfigError, DataError, XformerError
from xformer.runs.recorded_run import RecordedRun, load_runs
from xformer.studies.comparison import Comparison, ComparisonRow, compare
from xformer.studies.study import Study
from xformer.studies.table import decimals

AS_IS = "as in the study"
"""The name of the study's own settings among the changed ones."""
_SHOWN = ("better", "worse")


@dataclass(frozen=True)
class Condition:
    """A study with one setting changed.

    Attributes:
        name: `size=tiny`, or that nothing is changed.
        comparison: of its runs; None where there are none, or where they cannot be compared.
        reason: why there is no comparison.
    """

    name: str
    comparison: Comparison | None
    reason: str | None = None

    def row(self, name: str) -> ComparisonRow | None:
        """The row of a group that has a verdict; None where it has none."""
        rows = self.comparison.rows if self.comparison else ()
        return next((row for row in rows if row.name == name and row.test), None)


def directory_of(study: Study) -> Path:
    """Where the runs with changed settings lie, unless they are said to lie elsewhere."""
    return Path("outputs", "robustness", study.name)


def read_changes(study: Study, words: Sequence[str]) -> dict[str, list[str]]:
    """The changed keys and their values, from `key=a,b,c`.

    Raises:
        ConfigError: a word is not of that form, or the study varies the key itself.
    """
    found: dict[str, list[str]] = {}
    tuned = study.tune.grid if study.tune else {}
    for word in words:
        key, equals, values = word.partition("=")
        if not (key and equals and all(values.split(","))):
            raise ConfigError(f"{word} is not a setting and its values; write key=a,b, such as size=tiny,base.")
        if key == "seed" or (key in study.grid and key not in tuned):
            raise ConfigError(f"{key} is varied by {study.name} itself; change a setting that it holds fixed.")
        found.setdefault(key, []).extend(values.split(","))
    if not found:
        raise ConfigError("No setting is changed; write key=a,b, such as size=tiny,base optimizer.lr=0.001,0.01.")
    return found


def conditions(study: Study, changes: Mapping[str, Sequence[str]], directories: Sequence[Path] = ()) -> list[Condition]:
    """The study as it is, and with each change, one at a time.

    Args:
        study: the study.
        changes: key to values.
        directories: where runs with changed settings lie; default: `directory_of`.

    Raises:
        DataError: a directory is not there, or no run in it has one of the changed settings.
    """
    default = [directory for directory in [directory_of(study)] if directory.is_dir()]
    runs = load_runs([*directories] or default) if directories or default else []
    found = [_condition(study, AS_IS, _unchanged(study))]
    for key, values in changes.items():
        of_key = [run for run in runs if _changed(study, run) == {key}]
        for value in values:
            having = [run for run in of_key if _text(run, key) == _canonical(value)]
            found.append(_condition(study, f"{key}={value}", having))
        others = sorted({_text(run, key) for run in of_key} - {_canonical(value) for value in values})
        if directories and others and all(each.comparison is None for each in found[-len(values) :]):
            raise DataError(f"No run has {key}={values[0]}; {nearest(values[0], others)}")
    return found


def commands(study: Study, changes: Mapping[str, Sequence[str]], found: Sequence[Condition]) -> list[str]:
    """The command for each key some of whose values have no runs yet."""
    lacking = {each.name for each in found if each.comparison is None and each.reason == _NO_RUNS}
    missing = {key: [value for value in values if f"{key}={value}" in lacking] for key, values in changes.items()}
    return [
        f"{study.command} {key}={','.join(values)} hydra.sweep.dir={directory_of(study)}"
        for key, values in missing.items()
        if values
    ]


def verdict_rows(found: Sequence[Condition]) -> list[list[str]]:
    """A table: its titles, then for each condition the verdict on each group, with the difference and the seeds."""
    names = _names(found)
    return [["setting", *names], *([each.name, *(_cell(each, name) for name in names)] for each in found)]


def verdict_sentences(found: Sequence[Condition]) -> list[str]:
    """A sentence for each group: in how many settings its verdict is that of the study, and where it is another."""
    return [_sentence(found, name) for name in _names(found)]


def as_json(found: Sequence[Condition]) -> str:
    """The verdicts as JSON: a list of settings, each with its groups."""
    content = [
        {
            "setting": each.name,
            "reason": each.reason,
            "groups": {
                name: {"verdict": row.verdict, "difference": row.difference.mean, "pairs": row.difference.pairs}
                for name in _names(found)
                if (row := each.row(name)) and row.difference
            },
        }
        for each in found
    ]
    return json.dumps({"settings": content, "sentences": verdict_sentences(found)}, indent=2) + "\n"


_NO_RUNS = "no runs yet."


def _unchanged(study: Study) -> list[RecordedRun]:
    try:
        return study.runs()
    except DataError:
        return []


def _condition(study: Study, name: str, runs: Sequence[RecordedRun]) -> Condition:
    if not runs:
        return Condition(name, None, _NO_RUNS)
    try:
        return Condition(name, compare(runs, study.metric, study.baseline, study.plan))
    except XformerError as error:
        return Condition(name, None, str(error))


def _changed(study: Study, run: RecordedRun) -> set[str]:
    """The keys that a run sets beside the study's grid, tuned ones among them where nothing was tuned for it."""
    typed = {key_of(override) for override in reproducing_overrides(run.summary.overrides)}
    swept = {key for key in study.grid if study.tune is None or key not in study.tune.grid}
    changed = typed - swept - {"experiment", "seed", "on_incompatible"}
    tuned = {*(study.tune.grid if study.tune else ())}
    return changed - tuned or changed


def _text(run: RecordedRun, key: str) -> str:
    return _canonical(override_value(run.settings.get(key)))


def _canonical(text: str) -> str:
    """A value in one form: 1e-3 and 0.001 are the same."""
    try:
        return override_value(float(text))
    except ValueError:
        return text


def _names(found: Sequence[Condition]) -> list[str]:
    rows = (row for each in found if each.comparison for row in each.comparison.rows)
    return [*dict.fromkeys(row.name for row in rows if row.test)]


def _cell(condition: Condition, name: str) -> str:
    row = condition.row(name)
    if row is None or row.difference is None or condition.comparison is None:
        return condition.reason or "no verdict"
    digits = decimals(condition.comparison)
    return f"{row.verdict} ({row.difference.mean:+.{digits}f}, {row.difference.pairs} seeds)"


def _sentence(found: Sequence[Condition], name: str) -> str:
    verdicts = {each.name: row.verdict for each in found if (row := each.row(name))}
    baseline = next(each.comparison.baseline for each in found if each.comparison and each.row(name))
    usual = verdicts.get(AS_IS) or Counter(verdicts.values()).most_common(1)[0][0]
    same = sum(verdict == usual for verdict in verdicts.values())
    others: dict[str, list[str]] = {}
    for setting, verdict in verdicts.items():
        if verdict != usual:
            others.setdefault(verdict, []).append(setting)
    flips = "flips" if {usual, *others} >= {*_SHOWN} else None
    elsewhere = [f"{verdict} at {', '.join(settings)}" for verdict, settings in others.items()]
    link = "from" if usual.startswith("no") else "to" if usual.startswith("equivalent") else "than"
    is_usual = usual if usual.startswith("no") else f"is {usual}"
    first = f"{name}: {is_usual} {link} {baseline} in {same} of {len(verdicts)} settings"
    return "; ".join([first, *elsewhere]) + (". The verdict flips." if flips else ".")
