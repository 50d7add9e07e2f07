"""Train one model, or a sweep with -m; resume=DIR continues what is there."""

import os
import sys

import hydra
from omegaconf import DictConfig

from xformer.config.redact import redact_streams
from xformer.config.validate import CONF
from xformer.errors import XformerError
from xformer.runs import sweep

WRAPPED = "XFORMER_WRAPPED"
"""Set where an error is told in a sentence further up, and by whom else than Hydra."""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def train_as_configured(config: DictConfig) -> float | None:
    """What Hydra calls with each composed configuration; returns the monitored metric, for a sweeper that searches."""
    from xformer.core.console import error
    from xformer.runs.job import Job
    from xformer.training.run import run

    redact_streams()  # here too, for a launcher's own processes
    job = Job.from_hydra(config)
    try:
        return run(job)
    except XformerError as refusal:
        # Hydra goes on with a sweep's other jobs, and precedes what a single job raises with lines of its own.
        if job.sweep or WRAPPED not in os.environ:
            raise
        error(str(refusal))
        sys.exit(1)


def main() -> None:
    """What the command line asks for; a sweep ends, however it ends, with one table over its cells."""
    if any(word.startswith("resume=") for word in sys.argv):
        from xformer.training.resume import expand_resume

        sys.argv[1:] = expand_resume(sys.argv[1:])
    try:
        train_as_configured()
    finally:
        over = sweep.end_sweep()
        if over is not None and (files := over.summaries()):
            from xformer.training import console_report

            console_report.sweep_table(over, files)
