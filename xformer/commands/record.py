"""Write what came of a study beside its file: table of runs, figures, findings."""

import argparse
from pathlib import Path


def main() -> None:
    """Write `experiments/STUDY/` from the study's runs."""
    from xformer.analysis.load import load_runs
    from xformer.analysis.record import record
    from xformer.analysis.study import Study

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="default: the study's hydra.sweep.dir")
    arguments = parser.parse_args()
    study = Study.of(arguments.study)
    for path in record(study, load_runs([arguments.runs or study.directory])):
        print(path)
