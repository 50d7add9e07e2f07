"""The sweeper behind `-m`: Hydra's grid, and before it the trials of a study that tunes its variants.

Hydra builds sweepers of its own packages alone, by their names. So this class takes the place of its basic one, and
holds that: subclassing it fails where Hydra has imported its module once more, as its search for plugins does.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from xformer.config.identity import key_of, override_value
from xformer.config.tune import TunePlan
from xformer.core import console
from xformer.errors import ConfigError, RunError
from xformer.runs.summary import FILE as SUMMARY
from xformer.runs.sweep import announce_sweep, current_sweep, with_trials

FOLDER = "tune"
"""Where the trials of a sweep lie, in its directory."""
_BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


class TuningSweeper(Sweeper):
    """Every combination of values, as Hydra's basic sweeper; of a study with a `tune` block, first the trials.

    The trials of a variant are each setting of `study.tune` with each tuning seed. When all of them have ended, the
    setting with the best mean validation metric is chosen for each variant (`xformer.studies.trials` has the rule),
    and the final runs are started with that setting among their overrides. A tuned key on the command line takes the
    place of the trials.

    Args:
        max_batch_size: how many jobs are launched together; None for all.
        params: the grid, key to values as on the command line.
    """

    def __init__(self, max_batch_size: int | None, params: Mapping[str, Any] | None = None) -> None:
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        self.basic = BasicSweeper(max_batch_size, dict(params or {}))
        self.config: DictConfig

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Learn what is to be run, and by which launcher."""
        self.config = config
        self.basic.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep.

        Raises:
            ConfigError: the `tune` block is not valid, or does not go with the sweep's other keys.
            RunError: a trial failed, or all settings of a variant diverged; the final runs of the others have run.
        """
        study = self.config.get("study")
        plan = TunePlan.of(OmegaConf.to_container(study, resolve=True) if study else None)  # type: ignore[arg-type]
        if plan is None or self._has_fixed(plan, arguments):
            return self.basic.sweep(arguments)
        assert self.basic.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.basic.hydra_context.config_loader)
        overrides = parser.parse_overrides(
            [*(f"{key}={values}" for key, values in self.basic.params.items()), *arguments]
        )
        (cells,) = self.basic.split_arguments(overrides, None)
        plan.refuse_final_seeds(_seed(cell, self.config.seed) for cell in cells)
        directory = Path(self.config.hydra.sweep.dir)
        _refuse_other_seeds(directory / FOLDER, plan)
        directory.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, directory / "multirun.yaml")
        trials = self._trials(cells, plan)
        if (sweep := current_sweep()) is not None:
            announce_sweep(with_trials(sweep, self.config.hydra.launcher, len(trials), plan.grid))
        tried = self._launch(trials, 0)
        finals, problems = self._finals(cells, plan, directory / FOLDER)
        for sentence in problems:
            console.error(sentence)
        returns = self._launch(finals, len(trials))
        for job in (job for batch in returns for job in batch):
            _ = job.return_value  # raises what a failed run raised
        if problems:
            error = RunError(" ".join(problems))
            error.reported = True
            raise error
        return [*tried, *returns]

    def _has_fixed(self, plan: TunePlan, arguments: Iterable[str]) -> bool:
        """Whether the tuned keys are set on the command line, so that nothing is left to tune."""
        swept = [key for key in plan.grid if key in self.basic.params]
        if swept:
            raise ConfigError(
                f"{swept[0]} is in study.tune and in hydra.sweeper.params; leave it in one: a tuned setting is chosen "
                "for each variant, a swept one makes variants."
            )
        typed = {key_of(word) for word in arguments}
        fixed = [key for key in plan.grid if key in typed]
        if fixed and len(fixed) < len(plan.grid):
            tuned = ", ".join(plan.grid)
            raise ConfigError(
                f"study.tune tunes {tuned}, and {', '.join(fixed)} alone is set; set all of them or none."
            )
        return bool(fixed)

    def _trials(self, cells: Sequence[Sequence[str]], plan: TunePlan) -> list[list[str]]:
        """The overrides of every trial; they lie in a folder of their own."""
        sweep_node: Any = OmegaConf.to_container(self.config.hydra.sweep, resolve=False)
        variants = dict.fromkeys(tuple(o for o in cell if key_of(o) != "seed") for cell in cells)
        return [
            [*variant, *trial, f"hydra.sweep.subdir='{FOLDER}/{sweep_node['subdir']}'"]
            for variant in variants
            for trial in plan.trials
        ]

    def _finals(
        self, cells: Sequence[Sequence[str]], plan: TunePlan, folder: Path
    ) -> tuple[list[list[str]], list[str]]:
        """The overrides of every final run, with the chosen setting, and a sentence for each variant without one."""
        from xformer.runs.recorded_run import load_runs
        from xformer.studies.trials import setting_name, tuning_of, variant_name, variant_of

        tuning = tuning_of(load_runs([folder]))
        finals: list[list[str]] = []
        problems: dict[str, None] = {}
        declared = {setting_name(setting) for setting in plan.settings}
        for cell in cells:
            variant = tuning.variants.get(variant_of(cell, plan.grid)) if tuning else None
            if variant is None:  # its trials were skipped, and so will it be
                finals.append(list(cell))
                continue
            name, chosen = variant_name(cell, plan.grid), variant.chosen
            failed = [
                f"{setting.name} seed={seed}: {why}"
                for setting in variant.settings
                for seed, why in setting.unfinished.items()
                if setting.name in declared
            ]
            if failed:
                problems[
                    f"{name} has no final run, because {len(failed)} of its trials gave no value: {failed[0]} "
                    "Run the same command again to continue."
                ] = None
            elif chosen is None:
                problems[f"{name} has no final run: all its trials diverged; add lower values to study.tune."] = None
            else:
                setting = [f"{key}={override_value(value)}" for key, value in chosen.values.items()]
                at = [index for index, o in enumerate(cell) if key_of(o) == "seed"] or [len(cell)]
                finals.append([*cell[: at[0]], *setting, *cell[at[0] :]])
        for variant in tuning.variants.values() if tuning else ():
            if variant.chosen:
                console.info(f"Chosen for {variant.name}: {variant.chosen.name} of {len(variant.settings)} settings.")
        return finals, [*problems]

    def _launch(self, jobs: list[list[str]], first: int) -> list[Sequence[JobReturn]]:
        """Launch jobs; those that fail say so themselves."""
        assert self.basic.launcher is not None
        returns: list[Sequence[JobReturn]] = []
        for batch in self.basic.split_overrides_to_chunks(jobs, self.basic.max_batch_size) if jobs else ():
            self.basic.validate_batch_is_legal(batch)
            returns.append(self.basic.launcher.launch(batch, initial_job_idx=first))
            first += len(batch)
        return returns


def _refuse_other_seeds(folder: Path, plan: TunePlan) -> None:
    """Refuse a folder with trials of other seeds: settings are compared on equal ones.

    Raises:
        ConfigError: naming the seeds.
    """
    from xformer.runs.recorded_run import read_run

    earlier = [read_run(file.parent) for file in sorted(folder.glob(f"*/{SUMMARY}"))]
    others = sorted({run.seed for run in earlier if run.seed is not None} - {*plan.seeds})
    if others:
        raise ConfigError(
            f"{folder} holds trials of seed {', '.join(map(str, others))}, which study.tune.seeds={list(plan.seeds)} "
            "lacks; add it there, or use another hydra.sweep.dir."
        )


def _seed(cell: Iterable[str], default: int) -> int:
    typed = [override.partition("=")[2] for override in cell if key_of(override) == "seed"]
    return int(typed[-1]) if typed and typed[-1].isdecimal() else int(default)


def install() -> None:
    """Let Hydra build this sweeper wherever its basic one is asked for, which is the default."""
    Plugins.instance().class_name_to_class[_BASIC] = TuningSweeper
