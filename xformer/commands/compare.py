"""Compare runs: means, intervals, paired differences, verdicts, budgets."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xformer.studies.comparison import Comparison


def main() -> None:
    """Print the comparison, or write it to a file."""
    from xformer.studies.output_formats import FORMATS

    parser = argparse.ArgumentParser(description=__doc__)
    add_selection(parser)
    parser.add_argument("--format", choices=FORMATS, default="table")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to a file instead of the screen")
    arguments = parser.parse_args()
    text = FORMATS[arguments.format](compared(arguments))
    if arguments.output:
        write_file(text, arguments.output)
    else:
        print(text, end="")


def write_file(text: str, file: Path) -> None:
    """Write a file, and the directory that it is to lie in.

    Raises:
        ConfigError: it cannot be written.
    """
    from xformer.errors import ConfigError

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"-o {file} cannot be written: {error.strerror}; give another file.") from error


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Which runs are compared, and how: the arguments that `compare` and `report` share."""
    what = "run directories, directories of sweeps, patterns, or the name of a study"
    parser.add_argument("runs", nargs="*", metavar="RUN", help=what)
    parser.add_argument("--wandb", metavar="ENTITY/PROJECT[/GROUP]", help="read the runs from Weights & Biases")
    parser.add_argument("--metric", help="default: the monitored metric, on the test part")
    parser.add_argument("--baseline", metavar="KEY=VALUE", help="default: attention=full, else the first group")


def compared(arguments: argparse.Namespace) -> "Comparison":
    """The comparison that the arguments of `add_selection` ask for.

    Raises:
        XformerError: the runs cannot be read or compared.
    """
    from xformer.studies.comparison import compare
    from xformer.studies.study import select

    runs, study = select(arguments.runs) if arguments.runs or not arguments.wandb else ([], None)
    if arguments.wandb:
        from xformer.studies.wandb_runs import load_wandb  # which loads torch and lightning

        runs += load_wandb(arguments.wandb)
    metric = arguments.metric or (study.metric if study else None)
    return compare(runs, metric, arguments.baseline or (study.baseline if study else None))
