"""Run a study again and compare each cell with its committed table."""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xformer.analysis.load import Run


def main() -> None:
    """Print a verdict per cell; the exit code is 1 unless all pass."""
    from xformer.analysis.metric import Metric
    from xformer.analysis.reproduce import judge, tolerance
    from xformer.analysis.study import Study
    from xformer.errors import ConfigError

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study")
    parser.add_argument("--cells", metavar="KEY=VALUE[,...]", help="only cells with these settings")
    parser.add_argument("--seeds", metavar="N[,N]", help="only these seeds")
    parser.add_argument("--directory", type=Path, help="where the runs go; default: outputs/reproduce/STUDY-TIME")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="more for each run, as cache=DIR")
    arguments = parser.parse_intermixed_args()
    study = Study.of(arguments.study)
    committed = study.committed()
    metric = Metric.of(committed, study.metric).name
    allowed = tolerance([run for run in committed if run.summary.status == "finished"], metric)
    chosen = [run for run in committed if _is_wanted(run, arguments.cells, arguments.seeds)]
    if not chosen:
        asked = f"--cells {arguments.cells}" * bool(arguments.cells) + f" --seeds {arguments.seeds}" * bool(
            arguments.seeds
        )
        raise ConfigError(
            f"{asked.strip()}: no cell of {study.name} is meant; there are "
            f"{', '.join(Path(run.name).name for run in committed)}."
        )
    print(f"{study.name}: {len(chosen)} of {len(committed)} cells, {metric} within {allowed:.3g} (99 % of two seeds)")
    where = arguments.directory or Path("outputs/reproduce") / f"{study.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    words = []
    for run in chosen:
        again, earlier = _again(run, where, arguments.overrides)
        verdict = judge(run, again, metric, allowed)
        words.append(verdict.word)
        said = [*verdict.said, f"not run again: finished earlier in {again.directory}."] if earlier else verdict.said
        print(f"{verdict.word:<8}{verdict.cell}: {' '.join(said)}", flush=True)
    print(", ".join(f"{words.count(word)} {word}" for word in ("pass", "fail", "changed") if word in words))
    if set(words) != {"pass"}:
        sys.exit(1)


def _is_wanted(run: "Run", cells: str | None, seeds: str | None) -> bool:
    from xformer.analysis.settings import text

    wanted = [word.partition("=") for word in (cells or "").split(",") if word]
    settings = all(key in run.settings and text(run.settings[key]) == value for key, _, value in wanted)
    return settings and (seeds is None or str(run.seed) in seeds.split(","))


def _again(run: "Run", where: Path, overrides: list[str]) -> tuple["Run", bool]:
    """Train a cell in a process of its own; also whether it was not, because an earlier one finished it there.

    Raises:
        RunError: nothing was trained, and what lies there is not this run's.
    """
    from xformer.analysis.load import read_run, run_directories
    from xformer.errors import DataError, RunError

    directory = where / Path(run.name).name
    before = _written(directory)
    code = "from xformer.cli import train; train()"
    words = [*run.summary.overrides, *overrides, f"hydra.sweep.dir='{directory}'", "hydra.sweep.subdir=run"]
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "screen.log").open("w") as screen:
        launched = subprocess.run([sys.executable, "-c", code, "-m", *words], stdout=screen, stderr=screen, check=False)
    earlier = before is not None and _written(directory) == before
    if earlier and launched.returncode != 0:
        raise RunError(f"{directory.name} did not start or was killed; {directory / 'screen.log'} says why.")
    try:
        return read_run(run_directories(directory)[0]), earlier
    except DataError:
        raise RunError(f"{directory.name} did not start; {directory / 'screen.log'} says why.") from None


def _written(directory: Path) -> int | None:
    """When the summary of the run below was written, in nanoseconds; None where there is none."""
    from xformer.record.summary import FILE

    return max((file.stat().st_mtime_ns for file in directory.glob(f"*/{FILE}")), default=None)
