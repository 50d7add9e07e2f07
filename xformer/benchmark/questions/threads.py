"""Threads benchmark: a run's speed while other processes keep cores busy, by number of threads and how they wait.

Each run is a separate process, because OpenMP reads its wait policy when it is loaded; the speed is that of its
summary, without start-up, warm-up and validation. Each setting runs on the idle machine and beside busy processes, so
the machine should be idle otherwise.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from xformer.benchmark.plots import plot_bars
from xformer.benchmark.progress import progress_bar
from xformer.benchmark.results import Results, Row
from xformer.core.threads import AUTO, usable_cores
from xformer.errors import RunError
from xformer.runs.summary import Summary, read_summary

_TRAIN = [sys.executable, "-m", "xformer.cli", "train"]
_FIXED = ["logger=csv", "callbacks.progress=null", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1"]
_OURS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT")
SHOWN = {
    "run": ("run", ""), "what": ("threads", ""), "threads": ("number", "d"), "quiet": ("tokens/s", ",.0f"),
    "busy": ("beside others", ",.0f"), "ratio": ("ratio", ".2f"),
}  # fmt: skip


@dataclass(frozen=True)
class ThreadSetting:
    """A number of threads and how they wait.

    Attributes:
        threads: the override.
        environment: the environment variables of OpenMP.
    """

    threads: str
    environment: Mapping[str, str]


def thread_settings() -> dict[str, ThreadSetting]:
    """The settings to compare: default, one thread, and a thread per core that sleeps or spins while waiting."""
    every = str(usable_cores())
    return {
        AUTO: ThreadSetting(AUTO, {}),
        "one": ThreadSetting("1", {}),
        "one a core": ThreadSetting(every, {}),
        "one a core, spinning": ThreadSetting(every, {"OMP_WAIT_POLICY": "ACTIVE"}),
    }


@contextmanager
def busy_cores(processes: int) -> Iterator[None]:
    """A context that keeps cores busy, with one spinning process for each."""
    consecutive = [sys.executable, "-m", "timeit", "--number", str(sys.maxsize)]
    started = [subprocess.Popen(consecutive) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def timed_run(overrides: Sequence[str], way: ThreadSetting, directory: Path) -> Summary:
    """Run and time one training command.

    Raises:
        RunError: the command failed.
    """
    command = [*_TRAIN, *_FIXED, *overrides, f"threads={way.threads}", f"hydra.run.dir='{directory}'"]
    warm_start = {name: value for name, value in os.environ.items() if name not in _OURS}
    done = subprocess.run(command, env={**warm_start, **way.environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"`{' '.join(command[2:])}` failed: {' '.join(done.stderr.split())[-300:]}")
    return read_summary(directory)


def measure(config: DictConfig, *, peers: bool) -> Results:
    """Measure the tokens per second of each run and setting, on the machine as it is and with busy processes.

    Args:
        config: `conf/benchmark.yaml`; `runs` are overrides of `conf/train.yaml`, `busy` is how many processes count.
        peers: unused: the other ways are the comparison.

    Raises:
        RunError: a run failed, or had too few steps to be timed.
    """
    compared, rows = thread_settings(), list[Row]()
    turns = len(config.runs) * config.rounds * len(compared)
    with tempfile.TemporaryDirectory() as folder, progress_bar(turns) as on_progress:
        for number, run in enumerate(config.runs):
            typed = [*filter(None, run.split(",")), f"trainer.max_steps={config.steps}", f"cache='{folder}/cache'"]
            timed_run([*typed, "trainer.max_steps=1"], compared["one"], Path(folder, f"data-{number}"))
            found: dict[str, list[tuple[Summary, Summary]]] = {name: [] for name in compared}
            for turn in range(config.rounds):
                for name, way in compared.items():
                    workload = Path(folder, f"{number}-{turn}-{name}")
                    quiet = timed_run(typed, way, workload / "quiet")
                    with busy_cores(config.busy):
                        found[name].append((quiet, timed_run(typed, way, workload / "busy")))
                    on_progress()
            rows += [_row(run, name, pairs) for name, pairs in found.items()]
    notes = [
        f"beside others: {config.busy} of {usable_cores()} cores kept busy by another process; "
        "ratio: the median of the rounds.",
        "The goal is a ratio of 0.7 with one core busy, for the default.",
    ]
    return Results("threads", rows, SHOWN, plot=plot, notes=notes)


def _row(run: str, name: str, pairs: Sequence[tuple[Summary, Summary]]) -> Row:
    speeds = [(_speed(quiet), _speed(beside)) for quiet, beside in pairs]
    return {
        "run": run or "default",
        "what": name,
        "threads": pairs[0][0].hardware["torch_threads"],
        "quiet": statistics.median(quiet for quiet, _ in speeds),
        "busy": statistics.median(beside for _, beside in speeds),
        "ratio": statistics.median(beside / quiet for quiet, beside in speeds),
    }


def _speed(summary: Summary) -> float:
    if summary.tokens_per_second is None:
        raise RunError("steps: a run was too short to be timed; use more steps.")
    return summary.tokens_per_second


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plot the remaining speed, by run and setting."""
    named = [{**row, "name": f"{row['run']}: {row['what']}"} for row in rows]
    plot_bars(named, path, name="name", value="ratio", label="of the quiet machine's tokens/s")
