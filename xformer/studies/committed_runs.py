"""The committed table of a study's runs: `runs.csv`, a row per run, and `shared.yml`, the settings that all rows share.

Together they hold what `compare` and `reproduce` need of a run, except its curve and its weights.
"""

import csv
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xformer.config.compose import cell_directory_name
from xformer.config.identity import Value, reproducing_overrides, with_option_names, without_ignored_keys
from xformer.config.moved import new_settings
from xformer.config.options import target_overrides
from xformer.errors import DataError
from xformer.runs.recorded_run import RecordedRun
from xformer.runs.summary import parse_integer, summary_from_json

RUNS = "runs.csv"
SHARED = "shared.yml"  # not .yaml: Hydra would offer it as an experiment
_PLAIN = (
    "status", "error", "seed", "baseline_metric", "parameters", "flops_per_token", "tokens_seen", "tokens_per_second",
    "peak_memory_bytes", "wall_seconds", "data_fingerprint",
)  # fmt: skip
_DAMAGED = (
    OSError, LookupError, TypeError, AttributeError, ValueError, yaml.YAMLError, csv.Error, OmegaConfBaseException,
)  # fmt: skip
_ENVIRONMENT = ("git", "versions", "hardware", "plugins")


def write_table(folder: Path, runs: Sequence[RecordedRun]) -> None:
    """Write both files.

    Raises:
        DataError: no run wrote its configuration, or the runs monitor different metrics.
    """
    whole = [run.settings for run in runs if run.whole]
    monitors = {(m.name, m.mode) for run in runs if (m := run.summary.monitor)}
    if not whole or len(monitors) > 1:
        raise DataError("A committed table needs runs that started, all with the same monitored metric.")
    common = {key: value for key, value in whole[0].items() if all(key in s and s[key] == value for s in whole)}
    environments: list[dict[str, Any]] = []
    rows = [_row(run, common, environments) for run in runs]
    shared: dict[str, Any] = {
        "settings": common,
        "choices": sorted({key for run in runs for key in run.summary.choices}),
        "monitor": dict(zip(("name", "mode"), next(iter(monitors)), strict=True)) if monitors else None,
        "environments": environments,
    }
    if plans := [run.summary.tuning for run in runs if run.summary.tuning]:
        shared["tuning"] = {"keys": plans[0].keys, "metric": plans[0].metric}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SHARED).write_text(OmegaConf.to_yaml(OmegaConf.create(shared)), encoding="utf-8")
    with (folder / RUNS).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_table(folder: Path) -> list[RecordedRun]:
    """Read both files.

    Raises:
        DataError: one is missing or damaged.
    """
    try:
        shared: Any = OmegaConf.to_container(OmegaConf.load(folder / SHARED))
        with (folder / RUNS).open(newline="", encoding="utf-8") as stream:
            return [_run(folder, row, shared) for row in csv.DictReader(stream)]
    except _DAMAGED as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{folder} does not hold a table of runs ({RUNS} and {SHARED}): {reason}.") from error


def row_name(run: RecordedRun) -> str:
    """A run's name in the table, made from its overrides and independent of its directory."""
    typed = reproducing_overrides(run.summary.overrides)
    return cell_directory_name(",".join(o for o in typed if not o.startswith("experiment="))) or Path(run.name).name


def _row(run: RecordedRun, common: Mapping[str, Value], environments: list[dict[str, Any]]) -> dict[str, str]:
    summary = asdict(run.summary)
    typed = reproducing_overrides(run.summary.overrides)
    environment = {key: summary[key] for key in _ENVIRONMENT if key != "plugins" or summary[key]}
    if environment not in environments:
        environments.append(environment)
    monitor = run.summary.monitor
    parts: dict[str, Any] = {
        "run": row_name(run),
        **{f"config.{key}": value for key, value in run.settings.items() if not (run.whole and key in common)},
        **{key: summary[key] for key in _PLAIN},
        **{f"metrics.{key}": value for key, value in run.summary.metrics.items()},
        **{f"trivial_baselines.{key}": value for key, value in run.summary.trivial_baselines.items()},
        "best": monitor.best if monitor else None,
        "best_step": monitor.step if monitor else None,
        "trial": run.summary.is_trial or None,
        "diverged": run.summary.diverged or None,
        "environment": environments.index(environment),
        "whole": run.whole,
        "overrides": shlex.join(typed),
    }
    # A setting that is null differs from a setting that is absent.
    return {key: _text(value) for key, value in parts.items() if value is not None or key.startswith("config.")}


def _run(folder: Path, row: Mapping[str, str], shared: Mapping[str, Any]) -> RecordedRun:
    values = {key: _value(text) for key, text in row.items() if text != ""}
    row_settings = _below("config.", values)
    whole = bool(values["whole"])
    settings = {**(shared["settings"] if whole else {}), **row_settings}
    for key, value in settings.items():
        if not isinstance(value, str | int | float | bool | None):
            raise ValueError(f"{key} is {str(value)[:40]!r}, not a single value")
    best = {"best": values.get("best"), "step": values.get("best_step")}
    summary = summary_from_json({
        **{key: values[key] for key in (*_PLAIN, "floor_of") if key in values},  # as earlier versions call it
        "choices": {key: str(settings[key]) for key in shared["choices"] if key in settings},
        "overrides": shlex.split(row["overrides"]),
        "metrics": _below("metrics.", values),
        "trivial_baselines": _below("floors.", values) | _below("trivial_baselines.", values),
        "monitor": shared["monitor"] | best if "best" in values else None,
        "diverged": values.get("diverged", False),
        "tuning": shared["tuning"] | {"trial": values.get("trial", False)} if "tuning" in shared else None,
        **shared["environments"][values["environment"]],
    })  # fmt: skip
    # A table of an earlier version has a `_target_` for each part.
    settings = new_settings(settings, summary.choices)
    parts = with_option_names(settings, summary.choices, target_overrides(settings, summary))
    return RecordedRun(f"{folder.name}/{row['run']}", without_ignored_keys(parts), summary, whole=whole)


def _below(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


def _text(value: Any) -> str:
    """Format a value so that `_value` reads it back; a string is quoted only if it would be read as something else."""
    return value if isinstance(value, str) and value and _value(value) == value else json.dumps(value)


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_int=parse_integer)
    except json.JSONDecodeError:
        return text
