"""Start-up benchmark: the duration of short commands, each in its own process."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig

from xformer.benchmark.plots import plot_bars
from xformer.benchmark.progress import progress_bar
from xformer.benchmark.results import Results, Row
from xformer.benchmark.timing import REPEATED, interleaved, number_of_turns
from xformer.errors import RunError

BASELINE = "import torch, lightning"
_XFORMER = [sys.executable, "-m", "xformer.cli"]
COMMANDS = {
    BASELINE: [sys.executable, "-c", BASELINE],
    "import xformer": [sys.executable, "-c", "import xformer"],
    "xformer --help": [*_XFORMER, "--help"],
    "xformer train --cfg job": [*_XFORMER, "train", "--cfg", "job"],
    "a run of one step, with its validation and test": [
        *_XFORMER,
        "train",
        "trainer.max_steps=1",
        "logger=csv",
    ],
}
"""The commands; the warm-up generates the data of the one-step run."""
SHOWN = {"what": ("what", ""), "seconds": ("seconds", ".2f"), "against_baseline": (f"of {BASELINE}", ".2f")}


def measure(config: DictConfig, *, peers: bool) -> Results:
    """Measure the seconds from start to end of each command.

    Args:
        config: `conf/benchmark.yaml`.
        peers: unused: importing what everything is built on is the comparison.
    """
    total = number_of_turns(len(COMMANDS), rounds=config.rounds, warmup=0)
    with tempfile.TemporaryDirectory() as folder, progress_bar(total) as on_progress:
        environment = {**os.environ, "XFORMER_CACHE": str(Path(folder) / "cache"), "WANDB_MODE": "offline"}
        steps = {name: _run(command, Path(folder), environment) for name, command in COMMANDS.items()}
        list(steps.values())[-1]()  # makes the data, and fills the file cache
        times = interleaved(steps, rounds=config.rounds, warmup=0, on_progress=on_progress)
    rows = [
        {
            "what": f"{REPEATED}: {BASELINE}" if name == REPEATED else name,
            "seconds": times.median(name),
            "against_baseline": 1 / times.speed(name),
        }
        for name in times.seconds
    ]
    notes = [f"of {BASELINE}: the median of the rounds' ratios; {REPEATED}: that import once more."]
    return Results("startup", rows, SHOWN, plot=plot, notes=notes)


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> Callable[[], object]:
    def run() -> None:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RunError(f"`{' '.join(command)}` failed: {done.stderr.strip().splitlines()[-1:]}.")

    return run


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plot the seconds of each command."""
    plot_bars(rows, path, name="what", value="seconds", label="seconds")
