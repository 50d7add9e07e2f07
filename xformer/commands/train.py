"""Train one model, or a sweep with -m; resume=DIR continues the run in DIR."""

import os
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from xformer.config.groups import CONF
from xformer.config.redact import redact_streams
from xformer.errors import XformerError
from xformer.runs import sweep
from xformer.studies import tuning_sweeper

WRAPPED = "XFORMER_WRAPPED"
"""Set if a caller, not Hydra, prints errors as sentences."""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def train_as_configured(config: DictConfig) -> float | None:
    """Train with one composed configuration, as Hydra calls it; returns the monitored metric, for a search."""
    from xformer.core.console import error
    from xformer.runs.job import Job
    from xformer.training.run import run

    _restartable()
    redact_streams()  # here too, for a launcher's own processes
    job = Job.from_hydra(config)
    try:
        return run(job)
    except XformerError as refusal:
        # Hydra continues with a sweep's other jobs, and prints its own lines before the error of a single job.
        if job.sweep or WRAPPED not in os.environ:
            raise
        error(str(refusal))
        sys.exit(1)


def _restartable() -> None:
    """Set `sys.argv` to the command that a multi-process strategy starts again: `xformer`, then `train`."""
    started = Path(sys.argv[0])
    script, _, command = started.name.partition(" ")
    if command == "train" and not started.exists():
        sys.argv[:1] = [str(started.with_name(script)), command]


def main() -> None:
    """Run the command line; a sweep prints a table over its cells at the end, however it ends."""
    if any(word.startswith("resume=") for word in sys.argv):
        from xformer.training.resume import expand_resume

        sys.argv[1:] = expand_resume(sys.argv[1:])
    tuning_sweeper.install()
    try:
        train_as_configured()
    finally:
        over = sweep.end_sweep()
        if over is not None and (files := over.summaries()):
            from xformer.training import console_report

            console_report.sweep_table(over, files)
