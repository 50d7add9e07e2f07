"""The current sweep, as its cells see it: their number, the keys that vary, and the remaining time."""

import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from xformer.config.redact import redact_file
from xformer.core.threads import usable_cores
from xformer.runs.summary import FILE, read_summary

_VARIABLE = "XFORMER_SWEEP"


@dataclass(frozen=True)
class Sweep:
    """A running sweep.

    Attributes:
        directory: the directory of its cells' directories.
        cells: the number of cells.
        varies: the keys that differ between cells, as the command line spells them.
        at_once: how many cells run on this machine at the same time.
        began: the start time, in seconds since the epoch.
    """

    directory: str
    cells: int
    varies: tuple[str, ...]
    at_once: int
    began: float

    def summaries(self) -> list[Path]:
        """The summaries in its directory, including those of earlier cells, in the order of the cells."""
        return sorted(Path(self.directory).rglob(FILE), key=_natural)

    def seconds_left(self, number: int) -> float | None:
        """The expected time of the cells from `number` on, where 0 is the first; None if no cell has ended yet."""
        recent = [file.parent for file in self.summaries() if file.stat().st_mtime >= self.began]
        done = sum(read_summary(directory).status != "running" for directory in recent)
        return (time.time() - self.began) / done * (self.cells - number) if done else None


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts 2 before 10."""
    return [(int(part) if part.isdigit() else -1, part) for part in path.parts]


def current_sweep() -> Sweep | None:
    """The sweep of this process, read from an environment variable that the launcher's processes inherit."""
    stored = os.environ.get(_VARIABLE)
    if stored is None:
        return None
    content = json.loads(stored)
    return Sweep(**{**content, "varies": tuple(content["varies"])})


def announce_sweep(sweep: Sweep) -> None:
    """Leave a sweep in the environment, where every launcher's processes find it."""
    os.environ[_VARIABLE] = json.dumps(asdict(sweep))


def with_trials(sweep: Sweep, launcher: DictConfig, trials: int, keys: Iterable[str]) -> Sweep:
    """A sweep that runs trials of tuning before its cells.

    Args:
        sweep: without them.
        launcher: Hydra's settings of it.
        trials: how many.
        keys: the settings that are tuned.
    """
    at_once = max(_at_once(launcher, number) for number in (trials, sweep.cells))
    varies = tuple(dict.fromkeys([*sweep.varies, *keys, "seed"]))
    return replace(sweep, cells=sweep.cells + trials, varies=varies, at_once=at_once)


def end_sweep() -> Sweep | None:
    """End the sweep and return it."""
    sweep = current_sweep()
    os.environ.pop(_VARIABLE, None)
    return sweep


class SweepCallback(Callback):
    """Hydra callback that passes the sweep to its cells and redacts secrets in Hydra's files."""

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Put the sweep into the environment, which the processes of every launcher inherit.

        Raises:
            SystemExit: its directory is that of a run, or a study that tunes is searched. Hydra would turn any other
                exception into a warning.
        """
        hydra = config.hydra
        if (Path(hydra.sweep.dir) / FILE).exists():
            from xformer.core import console

            console.error(f"hydra.sweep.dir={hydra.sweep.dir} is the directory of a run; use another.")
            raise SystemExit(1)
        sweeper = hydra.runtime.choices.get("hydra/sweeper")
        if sweeper != "basic" and OmegaConf.select(config, "study.tune") is not None:
            from xformer.core import console

            console.error(f"study.tune tries its own grid and not hydra/sweeper={sweeper}; leave one of the two out.")
            raise SystemExit(1)
        params = OmegaConf.to_container(hydra.sweeper.get("params") or OmegaConf.create({}), resolve=False)
        typed = OmegaConf.to_container(hydra.overrides.task, resolve=False)
        assert isinstance(params, dict)
        assert isinstance(typed, list)
        fixed = [f"{key!s}={value}" for key, value in params.items()]
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        try:
            overrides = parser.parse_overrides([*fixed, *typed])
            last = {override.get_key_element(): override for override in overrides}  # which is the one that counts
            varying = {key: override for key, override in last.items() if override.is_sweep_override()}
            cells = hydra.sweeper.get("n_trials") or _product(varying.values())
        except HydraException:
            return  # the sweeper says so itself
        sweep = Sweep(
            str(Path(hydra.sweep.dir).absolute()), cells, tuple(varying), _at_once(hydra.launcher, cells), time.time()
        )
        announce_sweep(sweep)

    def on_job_start(self, config: DictConfig, **kwargs: object) -> None:
        """Redact secrets in Hydra's files before anything else is done."""
        if (sweep := current_sweep()) is not None:
            redact_file(Path(sweep.directory) / "multirun.yaml")


def _product(varying: Iterable[Override]) -> int:
    cells = 1
    for override in varying:
        cells *= sum(1 for _ in override.sweep_string_iterator())
    return cells


def _at_once(launcher: DictConfig, cells: int) -> int:
    if launcher.get("n_jobs") is not None:
        jobs = int(launcher.n_jobs)  # joblib's, in which -1 means one per core
        return min(cells, jobs if jobs > 0 else max(1, usable_cores() + 1 + jobs))
    return cells if str(launcher.get("_target_")).endswith("LocalLauncher") else 1  # submitit starts them all
