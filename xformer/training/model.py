"""Building a model from command-line options without a run, for notebooks and scripts."""

from collections.abc import Sequence

from xformer.config.plan import Plan
from xformer.runs.job import Job
from xformer.tasks.base import Task
from xformer.training.matching import match_size


def build_model(options: str | Sequence[str] = ()) -> Task:
    """The model that `python train.py OPTIONS` begins to train, with the same initial values, in evaluation mode.

    It is the task, a LightningModule: `forward` returns logits, `step(batch)` the loss, and `model` is the
    architecture, from tokens to hidden states. The data is prepared, because it decides the vocabulary and the longest
    sequence.

    Args:
        options: one or several, as on the command line: `["attention=linformer", "size=tiny"]`.

    Raises:
        ConfigError: an option, a key or a value is not valid.
        IncompatibleError: choices are incompatible.
        DataError: the data cannot be read.
    """
    job = Job.compose([options] if isinstance(options, str) else options)
    plan = Plan.read(job.config, job.choices)
    plan.load_data()
    return match_size(plan).build_task().eval()
