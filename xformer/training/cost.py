"""What a model costs, before it is trained."""

from xformer.data.facts import Facts
from xformer.tasks.base import Task
from xformer.training.flops import flops_per_token


def trainable_parameters(task: Task) -> int:
    """Trainable parameters."""
    return sum(parameter.numel() for parameter in task.parameters() if parameter.requires_grad)


def training_flops_per_token(task: Task, facts: Facts) -> float:
    """FLOPs per token of a training step on one sequence of the greatest length, without padding.

    A run's own batches differ: padding costs and is no token, and attention costs less per token in a shorter sequence.
    """
    example = task.example(facts)
    return flops_per_token(task, lambda: task.step(task.prepare(example)).loss, tokens=int(task.count_tokens(example)))
