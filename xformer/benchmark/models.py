"""Whole models for benchmarks, composed as by `train.py`, and random tokens as input.

The cost of a step does not depend on the tokens, so these are random and no data is loaded.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim import Optimizer

from xformer.benchmark.live_bytes import extra_bytes
from xformer.config.compose import compose_config
from xformer.config.plan import Plan
from xformer.config.validate import target
from xformer.core import devices
from xformer.data.batch import LanguageModelingBatch
from xformer.data.spec import DataSpec
from xformer.errors import ConfigError
from xformer.tasks.base import Task
from xformer.tasks.token_prediction import TokenPrediction
from xformer.training.flops import flops_of

Loss = Callable[[LanguageModelingBatch], Tensor]
CLIP = 1.0
_NOT_ATTENTIONS = {"attention", "position", "longest", "length"}


def composed_config(overrides: Sequence[str]) -> DictConfig:
    """The configuration of `train.py` with these overrides.

    Raises:
        ConfigError: the task does not predict tokens of a sequence.
    """
    config = compose_config(overrides)
    task = target(config.task)
    if not (isinstance(task, type) and issubclass(task, Task)) or task.batch_type is not LanguageModelingBatch:
        raise ConfigError(
            "A benchmark of whole models draws its tokens at random, which works only with task=language_modeling and "
            "task=masked_language_modeling alone."
        )
    return config


def variant_overrides(settings: Mapping[str, Any]) -> list[str]:
    """An entry of `variants` or `models` as overrides of `train.py`."""
    chosen = [f"{group}={settings[group]}" for group in ("attention", "position") if group in settings]
    rest = [f"attention.{key}={value}" for key, value in settings.items() if key not in _NOT_ATTENTIONS]
    return [*chosen, *rest]


@dataclass(frozen=True)
class Workload:
    """The workload on which models are measured: device, batch and length.

    Attributes:
        vocabulary: the number of token ids.
        length: tokens of a sequence.
        batch: sequences.
        dtype: the type of matrix products; any but float32 uses autocast.
    """

    vocabulary: int
    length: int
    batch: int
    dtype: torch.dtype = torch.float32

    @property
    def device(self) -> torch.device:
        """The device: the first CUDA device if there is one, else the CPU."""
        return devices.default_device()

    def tokens(self, length: int | None = None) -> Int[Tensor, "batch length"]:
        """Random ids, equal on every call."""
        size = (self.batch, self.length if length is None else length)
        return torch.randint(self.vocabulary, size, generator=torch.Generator().manual_seed(0)).to(self.device)

    def pairs(self) -> LanguageModelingBatch:
        """Random tokens, with the next token at every position as label."""
        tokens = self.tokens(self.length + 1)
        return LanguageModelingBatch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())

    def precision(self) -> AbstractContextManager[object]:
        """The context of precision in which forward passes run."""
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, self.dtype)


def build_benchmark_model(config: DictConfig, workload: Workload) -> tuple[TokenPrediction, Plan]:
    """Build the task with its model for a workload, and its plan."""
    plan = Plan.of(config)
    plan.data.spec = DataSpec(vocabulary=workload.vocabulary, length=workload.length)
    task = plan.build_task()
    assert isinstance(task, TokenPrediction)
    return task.to(workload.device), plan


class TrainingStep:
    """A training step: one optimiser step, always on the same batch.

    Args:
        model: the model to train.
        loss: the loss of a batch.
        optimizer: the optimiser of its parameters.
        workload: the workload of the batch.
        compiled: whether to compile the loss, after its FLOPs are counted, which compiled code does not show.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, optimizer: Optimizer, workload: Workload, *, compiled: bool = False
    ) -> None:
        self.model, self.loss, self.optimizer, self.workload = model, loss, optimizer, workload
        self.compiled = compiled
        self.batch = workload.pairs()
        model.train()

    def __call__(self) -> None:
        """Run one step: forward, backward, gradient clipping and optimiser step."""
        self.gradients()
        self.optimizer.step()

    def gradients(self) -> None:
        """Compute the gradients, without the optimiser step."""
        with self.workload.precision():
            loss = self.loss(self.batch)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)

    def measure(self) -> tuple[float, int]:
        """Run one step, and return its FLOPs and peak bytes of weights, optimiser state, gradients and the rest.

        Only the forward and backward pass is measured; the optimiser needs less.
        """
        flops = flops_of(self.gradients)
        if self.compiled:
            self.loss = torch.compile(self.loss)
            self.gradients()
        extra = extra_bytes(self.gradients)  # apart, as kernels may give way to others while operations are counted
        self.optimizer.step()
        state = (entry for values in self.optimizer.state.values() for entry in values.values())
        held = [*self.model.parameters(), *self.model.buffers(), *(entry for entry in state if torch.is_tensor(entry))]
        return flops, extra + sum(tensor.numel() * tensor.element_size() for tensor in held)

    @property
    def parameters(self) -> int:
        """The number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)
