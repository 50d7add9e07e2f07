"""The cost of a model before training: parameters and FLOPs."""

from torch import Tensor

from xformer.data.spec import DataSpec
from xformer.tasks.base import Task
from xformer.training.flops import flops_per_token


def trainable_parameters(task: Task) -> int:
    """The number of trainable parameters."""
    return sum(parameter.numel() for parameter in task.parameters() if parameter.requires_grad)


def training_flops_per_token(task: Task, spec: DataSpec) -> float:
    """FLOPs per token of a training step on one sequence of the maximum length, without padding.

    Batches of a run differ: padding costs FLOPs but is not counted as tokens, and attention costs less per token in a
    shorter sequence.
    """
    example = task.example(spec)

    def loss() -> Tensor:
        outcome = task.training_outcome(task.prepare(example))
        return outcome.loss if outcome.auxiliary_loss is None else outcome.loss + outcome.auxiliary_loss

    return flops_per_token(task, loss, tokens=int(task.count_tokens(example)))
