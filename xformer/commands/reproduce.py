"""Run a study, or a run logged on W&B, again and compare: pass, fail or changed."""

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xformer.runs.recorded_run import RecordedRun
    from xformer.studies.wandb_runs import LoggedRun

_HOLDS = (
    "99 % of two seeds of the cell, at least a tenth and at most all of what the seeds of all cells show; identical "
    "where code, versions and machine are the same"
)


def main() -> None:
    """Print a verdict per cell; the exit code is 1 unless all pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "words", nargs="*", metavar="STUDY | OVERRIDE", help="a study, then overrides for each run, such as cache=DIR"
    )
    parser.add_argument("--wandb", metavar="ENTITY/PROJECT/RUN_ID", help="a logged run instead of a study")
    parser.add_argument("--cells", metavar="KEY=VALUE[,...]", help="only cells with these settings")
    parser.add_argument("--seeds", metavar="N[,N]", help="only these seeds")
    parser.add_argument("--directory", type=Path, help="directory for the runs (default: outputs/reproduce/NAME-TIME)")
    arguments = parser.parse_intermixed_args()
    studies = [word for word in arguments.words if "=" not in word]
    if len(studies) != (0 if arguments.wandb else 1):
        parser.error("name one study, or a run with --wandb")
    arguments.overrides = [word for word in arguments.words if "=" in word]
    words = _study(arguments, studies[0]) if studies else _logged(arguments)
    print(", ".join(f"{words.count(word)} {word}" for word in ("pass", "fail", "changed") if word in words))
    if set(words) != {"pass"}:
        sys.exit(1)


def _study(arguments: argparse.Namespace, name: str) -> list[str]:
    from xformer.errors import ConfigError
    from xformer.studies.metric import Metric
    from xformer.studies.repeat import repeat_cell
    from xformer.studies.reproduce import tolerance
    from xformer.studies.study import Study

    study = Study.of(name)
    committed = study.committed()
    metric = Metric.of([run for run in committed if not run.summary.is_trial], study.metric).name
    finished = [run for run in committed if run.summary.status == "finished"]
    chosen = [run for run in committed if _is_wanted(run, arguments.cells, arguments.seeds)]
    if not chosen:
        requested = {"--cells": arguments.cells, "--seeds": arguments.seeds}
        raise ConfigError(
            f"{' '.join(f'{key} {value}' for key, value in requested.items() if value)} matches no cell of "
            f"{study.name}; there are {', '.join(Path(run.name).name for run in committed)}."
        )
    # A trial is not tested: what it has is the metric that chose.
    metrics = [role.metric if (role := run.summary.tuning) and role.trial else metric for run in chosen]
    allowed = [tolerance(finished, name, run) for run, name in zip(chosen, metrics, strict=True)]
    cells = f"{len(chosen)} of {len(committed)} cells of {study.table}"
    within = ", ".join(
        f"{name} within {_range([a for a, other in zip(allowed, metrics, strict=True) if other == name])}"
        for name in dict.fromkeys(metrics)
    )
    print(f"{study.name}: {cells}, {within} ({_HOLDS})")
    where = _where(arguments, study.name)
    return _choices(committed) + [
        _judged(run, lambda run: repeat_cell(run, where, arguments.overrides), name, reach)
        for run, name, reach in zip(chosen, metrics, allowed, strict=True)
    ]


def _range(allowed: "Sequence[float]") -> str:
    return " to ".join(dict.fromkeys(f"{value:.3g}" for value in (min(allowed), max(allowed))))


def _choices(committed: "Sequence[RecordedRun]") -> list[str]:
    """Whether the final runs of a table have the settings that its trials choose; a verdict where it has trials."""
    from xformer.studies.trials import tuning_of

    tuning = tuning_of(committed)
    if tuning is None:
        return []
    _, wrong = tuning.without_superseded(run for run in committed if not run.summary.is_trial)
    for name, reason in wrong.items():
        print(f"{'fail':<8}{name}: {reason}", flush=True)
    if not wrong:
        chosen = "; ".join(f"{v.name} {v.chosen.name}" for v in tuning.variants.values() if v.chosen)
        print(f"{'pass':<8}chosen settings: as the trials of the table choose them ({chosen}).", flush=True)
    return ["fail"] * len(wrong) or ["pass"]


def _logged(arguments: argparse.Namespace) -> list[str]:
    from xformer.errors import DataError
    from xformer.studies.metric import Metric
    from xformer.studies.repeat import repeat_logged_run
    from xformer.studies.reproduce import environment_changes
    from xformer.studies.wandb_runs import load_wandb_run

    run = load_wandb_run(arguments.wandb)
    if run.summary.status != "finished":
        raise DataError(f"{run.name} has no result to reproduce: {run.summary.error}")
    metric = Metric.of([run], None).name
    allowed = _spread(run, metric)
    within = f"within {allowed:.3g} ({_HOLDS})" if allowed else "identical: its group has no other seeds"
    print(f"{run.name}: {metric} {within}")
    if elsewhere := environment_changes(run):
        print(elsewhere)
    where = _where(arguments, run.name.rpartition("/")[2])
    return [_judged(run, lambda _: repeat_logged_run(run, where, arguments.overrides), metric, allowed)]


def _spread(run: "LoggedRun", metric: str) -> float:
    """The tolerance for a rerun, from the spread of its group's seeds; 0 if there are too few."""
    from xformer.errors import DataError
    from xformer.studies.reproduce import tolerance
    from xformer.studies.wandb_runs import load_wandb

    try:
        others: Sequence[RecordedRun] = load_wandb(run.group) if run.group else [run]
        return tolerance([other for other in others if other.summary.status == "finished"], metric, run)
    except DataError:
        return 0.0


def _judged(
    run: "RecordedRun", repeat: "Callable[[RecordedRun], tuple[RecordedRun, bool]]", metric: str, allowed: float
) -> str:
    from xformer.errors import RunError
    from xformer.studies.reproduce import Verdict, judge

    try:
        repeated, earlier = repeat(run)
    except RunError as error:
        verdict, reasons = Verdict(run.name, "fail", ()), [str(error)]
    else:
        verdict = judge(run, repeated, metric, allowed)
        reasons = [*verdict.reasons]
        if earlier:
            reasons.append(f"not run again: finished earlier in {repeated.directory}.")
    print(f"{verdict.word:<8}{verdict.cell}: {' '.join(reasons)}", flush=True)
    return verdict.word


def _where(arguments: argparse.Namespace, name: str) -> Path:
    return arguments.directory or Path("outputs/reproduce") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _is_wanted(run: "RecordedRun", cells: str | None, seeds: str | None) -> bool:
    from xformer.config.identity import override_value
    from xformer.config.layer_names import shown_choice

    words = re.split(r",(?![^(\[{]*[)\]}])", cells or "")  # not at the commas of a hybrid's layers
    wanted = [word.partition("=") for word in words if word]
    settings = all(
        key in run.settings and value in map(override_value, (run.settings[key], shown_choice(run.settings, key)))
        for key, _, value in wanted
    )
    return settings and (seeds is None or str(run.seed) in seeds.split(","))
