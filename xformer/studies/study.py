"""A study: a committed experiment file, and a folder beside it with the recorded results."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from xformer.config.groups import CONF, nearest
from xformer.config.identity import key_of, reproducing_overrides
from xformer.config.plugins import plugins
from xformer.config.tune import TunePlan
from xformer.core.program import train_command, with_plugins
from xformer.errors import ConfigError, DataError
from xformer.runs.recorded_run import RecordedRun, load_runs, run_directories
from xformer.studies.committed_runs import RUNS, read_table
from xformer.studies.verdicts import ONE_LOOK, SPENDING, AnalysisPlan

EXPERIMENTS = CONF / "experiment"
_KEYS = {"question", "baseline", "metric", "expected", "settings", "margin", "looks", "spending", "tune"}
_FREE = {"experiment", "seed", "on_incompatible"}
_ASKS = re.compile(r"^study:", re.MULTILINE)
_INSTALLED = {"site-packages", "dist-packages"}
_APART = "Move it away, or name the directory of the study's own runs with --runs."


@dataclass(frozen=True)
class Study:
    """A committed sweep: an experiment, ours or a plugin's, with a `study:` block.

    Attributes:
        name: the file's name, as in `experiment=NAME`.
        question: the research question, in a sentence.
        baseline: the group that each group is compared with; None for the default of `compare`.
        metric: the metric to compare; None for the monitored metric.
        expected: the expected time, and on which machine.
        directory: the directory of its runs, `hydra.sweep.dir`.
        grid: the keys that differ between its runs: `hydra.sweeper.params`, and those that are tuned.
        plan: the margin of equivalence, and the numbers of seeds at which the runs are compared.
        tune: what is tuned for each variant; None where nothing is.
    """

    name: str
    question: str
    baseline: str | None
    metric: str | None
    expected: str
    directory: Path
    grid: tuple[str, ...] = ()
    plan: AnalysisPlan = ONE_LOOK
    tune: TunePlan | None = None

    @property
    def folder(self) -> Path:
        """The folder for results: beside the file, or `experiments/NAME` for a study of an installed package.

        Files within an installed package are lost when it is upgraded.
        """
        return Path("experiments", self.name) if _INSTALLED & {*self.beside.parts} else self.beside

    @property
    def beside(self) -> Path:
        """The folder of results beside the study's file."""
        return _file(self.name).resolve().with_suffix("")

    @property
    def table(self) -> Path | None:
        """The folder with the committed table, recorded here or beside the study's file; None without a table."""
        return next((folder for folder in (self.folder, self.beside) if (folder / RUNS).exists()), None)

    @property
    def command(self) -> str:
        """The command that runs the whole study."""
        return f"{train_command()} -m experiment={self.name}"

    @classmethod
    def of(cls, name: str) -> "Study":
        """Read a study's file.

        Raises:
            ConfigError: there is no study of that name, or its file lacks a required key.
        """
        if name not in studies():
            raise ConfigError(f"{name} is not a study; {nearest(name, studies())}")
        node: Any = OmegaConf.to_container(_composed(name), resolve=False)
        study_keys, hydra = node["study"], node.get("hydra", {})
        for key in study_keys:
            if key not in _KEYS:
                raise ConfigError(f"study.{key} in {_label(name)} is not known; {nearest(key, _KEYS)}")
        missing = {"question", "expected"} - {*study_keys}
        where = hydra.get("sweep", {}).get("dir")
        if missing or not where:
            lacking = [f"study.{key}" for key in sorted(missing)] or ["hydra.sweep.dir"]
            raise ConfigError(f"{_label(name)} lacks {', '.join(lacking)}.")
        tune = TunePlan.of(study_keys)
        grid = (*hydra.get("sweeper", {}).get("params", {}), *(tune.grid if tune else ()))
        return cls(
            name,
            study_keys["question"],
            study_keys.get("baseline"),
            study_keys.get("metric"),
            study_keys["expected"],
            Path(where),
            grid,
            _plan(name, study_keys),
            tune,
        )

    def refuse_others(self, runs: Sequence[RecordedRun]) -> None:
        """Refuse runs that do not belong to this study.

        Raises:
            DataError: a run is of another experiment, or sets a key outside the study's grid.
        """
        for run in runs:
            chosen = run.summary.choices.get("experiment")
            if chosen != self.name:
                raise DataError(f"{run.name} is not of {self.name}: it has experiment={chosen or 'null'}. {_APART}")
            typed = [key_of(override) for override in reproducing_overrides(run.summary.overrides)]
            foreign = [key for key in typed if key not in {*self.grid, *_FREE}]
            if foreign:
                raise DataError(
                    f"{run.name} is not of {self.name}: it sets {', '.join(foreign)}, which is not in the grid of "
                    f"experiments/{self.name}.yaml. {_APART}"
                )

    def runs(self) -> list[RecordedRun]:
        """The study's runs in its directory, or the committed table if it was not run here.

        Raises:
            DataError: there are neither runs nor a table.
        """
        if self.directory.is_dir():
            return load_runs([self.directory])
        return self.committed()

    def committed(self) -> list[RecordedRun]:
        """The runs of the committed table.

        Raises:
            DataError: there is no table.
        """
        table = self.table
        if table is None:
            where = "beside it" if self.folder == self.beside else f"in {self.folder} or beside its file"
            raise DataError(
                f"{self.name} has no runs in {self.directory} and no {RUNS} {where}; run {self.command}, then "
                f"{with_plugins('xformer record')} {self.name}."
            )
        return read_table(table)


def _plan(name: str, keys: dict[str, Any]) -> AnalysisPlan:
    margin, looks, spending = keys.get("margin"), keys.get("looks"), keys.get("spending", SPENDING[0])
    where = f"in {_label(name)}"
    if margin is not None and (isinstance(margin, bool) or not isinstance(margin, int | float) or not margin > 0):
        raise ConfigError(f"study.margin={margin} {where} must be a number above 0, in units of the metric.")
    numbers = looks if isinstance(looks, list) else [] if looks is None else [looks]
    whole = all(isinstance(look, int) and not isinstance(look, bool) and look >= 2 for look in numbers)
    if not whole or numbers != sorted(set(numbers)) or looks == []:
        raise ConfigError(f"study.looks={looks} {where} must be rising numbers of seeds from 2, such as [3, 6, 10].")
    if spending not in SPENDING:
        raise ConfigError(f"study.spending={spending} {where} must be one of {', '.join(SPENDING)}.")
    return AnalysisPlan(None if margin is None else float(margin), tuple(numbers), spending)


def studies() -> list[str]:
    """The names of all studies, experiments with a `study:` block; those in a folder are called FOLDER/NAME."""
    return [
        file.relative_to(folder).with_suffix("").as_posix()
        for folder in _folders()
        for file in sorted(folder.rglob("*.yaml"))
        if _ASKS.search(file.read_text(encoding="utf-8"))
    ]


def _folders() -> list[Path]:
    """The folders of experiments, ours and the plugins'."""
    return [EXPERIMENTS, *(plugin.conf / "experiment" for plugin in plugins())]


def _file(name: str) -> Path:
    return next(file for folder in _folders() if (file := folder / f"{name}.yaml").is_file())


def _label(name: str) -> str:
    """A study's file, for messages: `experiments/NAME.yaml`, or `PACKAGE/conf/experiment/NAME.yaml` of a plugin."""
    file = _file(name)
    owner = next((plugin for plugin in plugins() if file.is_relative_to(plugin.conf)), None)
    return f"{owner.package}/conf/experiment/{name}.yaml" if owner else f"experiments/{name}.yaml"


def _composed(name: str) -> Any:
    """A study's file merged over the files of `experiments/` that its defaults name, in Hydra's order."""
    experiment: Any = OmegaConf.load(_file(name))
    within = "/experiment/"
    bases = [base.removeprefix(within) for base in experiment.get("defaults", []) if str(base).startswith(within)]
    return OmegaConf.merge(*map(_composed, bases), experiment)


def select(names: Sequence[str]) -> tuple[list[RecordedRun], Study | None]:
    """Load the runs named on a command line, and the study if one is named.

    Raises:
        DataError: a name is neither a run, a directory of runs nor a study.
    """
    if not names:
        raise DataError(f"No runs are named; name run directories, directories of sweeps or a study: {_known()}.")
    found = [Study.of(name) for name in names if name in studies() and not _holds_runs(Path(name))]
    runs: list[RecordedRun] = []
    for name in names:
        path = Path(name)
        if study := next((study for study in found if study.name == name), None):
            runs += study.runs()
        elif (path / RUNS).exists():
            runs += read_table(path)
        elif path.exists() or set("*?[") & set(name):
            runs += load_runs([name])
        else:
            raise DataError(f"{name} is neither a directory nor a study; studies: {_known()}.")
    return runs, found[0] if len(found) == 1 else None


def _holds_runs(path: Path) -> bool:
    try:
        return path.is_dir() and bool(run_directories(path))
    except DataError:
        return False


def _known() -> str:
    return ", ".join(studies()) or "none yet"
