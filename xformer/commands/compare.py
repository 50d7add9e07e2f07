"""Compare runs: means, intervals, paired differences, verdicts, budgets."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xformer.studies.comparison import Comparison
    from xformer.studies.study import Study


def main() -> None:
    """Print the comparison, or write it to a file."""
    from xformer.errors import ConfigError
    from xformer.studies.experiments import only
    from xformer.studies.latex import COLUMNS
    from xformer.studies.output_formats import FORMATS, format_comparisons

    parser = argparse.ArgumentParser(description=__doc__)
    add_selection(parser)
    parser.add_argument("--format", choices=FORMATS, default="table")
    parser.add_argument(
        "--columns",
        metavar="NAME[,NAME]",
        type=lambda text: text.split(","),
        default=(),
        help="of --format latex (default: mean,difference): " + ", ".join(COLUMNS),
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to a file instead of the screen")
    parser.add_argument(
        "--add-seeds",
        nargs="?",
        type=_above_zero,
        const=0,
        metavar="N",
        help="print, instead of the table, the command for N more seeds of a study and the resulting error rate",
    )
    arguments = parser.parse_args()
    comparisons, study = compared(arguments)
    if arguments.add_seeds is None:
        text = format_comparisons(arguments.format, comparisons, arguments.columns)
    elif study is None:
        raise ConfigError("--add-seeds needs a study: xformer compare STUDY --add-seeds.")
    else:
        from xformer.studies.more_seeds import more_seeds

        text = "\n".join(more_seeds(study, only(comparisons, "--add-seeds"), arguments.add_seeds or None)) + "\n"
    if arguments.output:
        write_file(text, arguments.output)
    else:
        print(text, end="")


def write_file(text: str, file: Path) -> None:
    """Write a file, and create its directory if needed.

    Raises:
        ConfigError: the file cannot be written.
    """
    from xformer.errors import ConfigError

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"-o {file} cannot be written: {error.strerror}; use another file.") from error


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `compare` and `report` share: which runs to compare, and how."""
    what = "run directories, directories of sweeps, patterns, or the name of a study"
    parser.add_argument("runs", nargs="*", metavar="RUN", help=what)
    parser.add_argument("--wandb", metavar="ENTITY/PROJECT[/GROUP]", help="read the runs from Weights & Biases")
    parser.add_argument("--metric", help="default: the monitored metric, on the test split")
    parser.add_argument("--baseline", metavar="KEY=VALUE", help="default: attention=full, else the first group")
    parser.add_argument("--seeds", metavar="N[,N]", help="only these seeds")
    parser.add_argument(
        "--margin",
        type=_margin,
        metavar="X",
        help="test whether differences are smaller than X, in units of the metric",
    )
    parser.add_argument(
        "--intervals",
        choices=("corrected", "plain", "simultaneous"),
        default="corrected",
        help="intervals of differences: at the level of the corrected test (default), 95 %% each, or 95 %% together",
    )
    parser.add_argument(
        "--scale",
        choices=("parameters", "flops"),
        default="parameters",
        help="what a size is measured by, where the runs are of three sizes or more (default: parameters)",
    )


def _margin(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a margin; use a number above 0, in units of the metric")
    return value


def _above_zero(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seeds; use 1 or more")
    return int(text)


def compared(arguments: argparse.Namespace) -> "tuple[list[Comparison], Study | None]":
    """The comparisons selected by the arguments of `add_selection`, one per experiment, and the study if one is named.

    Raises:
        XformerError: the runs cannot be read or compared.
    """
    from xformer.errors import DataError
    from xformer.studies.experiments import compare_experiments
    from xformer.studies.study import select
    from xformer.studies.verdicts import ONE_LOOK

    runs, study = select(arguments.runs) if arguments.runs or not arguments.wandb else ([], None)
    if arguments.wandb:
        from xformer.studies.wandb_runs import load_wandb  # which loads torch and lightning

        runs += load_wandb(arguments.wandb)
    if arguments.seeds is not None:
        runs = [run for run in runs if run.summary.is_trial or str(run.seed) in arguments.seeds.split(",")]
        if all(run.summary.is_trial for run in runs):
            raise DataError(f"--seeds {arguments.seeds}: no run has one of these seeds.")
    metric = arguments.metric or (study.metric if study else None)
    baseline = arguments.baseline or (study.baseline if study else None)
    plan = study.plan if study else ONE_LOOK
    if arguments.margin is not None:
        plan = replace(plan, margin=arguments.margin)
    found = compare_experiments(runs, metric, baseline, plan, arguments.intervals)
    return [replace(comparison, scale=arguments.scale) for comparison in found], study
