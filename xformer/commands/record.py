"""Write a study's results beside its file: table of runs, figures, findings."""

import argparse
from pathlib import Path


def main() -> None:
    """Write the study's folder, `experiments/STUDY/` or that of a plugin, from its runs."""
    from xformer.runs.recorded_run import load_runs
    from xformer.studies.record import record_study
    from xformer.studies.study import Study

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="default: the study's hydra.sweep.dir")
    parser.add_argument(
        "--wandb", metavar="[ENTITY/]PROJECT", help="also log the results there, as the artifact study-STUDY"
    )
    arguments = parser.parse_args()
    study = Study.of(arguments.study)
    directory = arguments.runs or study.directory
    files = record_study(study, load_runs([directory]))
    for path in files:
        print(path)
    if arguments.wandb:
        from xformer.loggers.wandb_artifact import log_study  # which loads torch and lightning

        entity, _, project = arguments.wandb.rpartition("/")
        where = {"project": project, "entity": entity or None, "directory": directory}
        print(f"{log_study(study.name, files, question=study.question, **where)}: artifact study-{study.name}")
