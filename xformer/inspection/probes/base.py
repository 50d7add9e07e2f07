"""What all probes share: the examples they measure on, and that training does not notice them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from xformer.data.batch import PADDED_WITH, Batch
from xformer.inspection.attention_calls import AttentionCall, attention_calls
from xformer.tasks.base import Task
from xformer.training.flops import preserving_state


class Probe(Callback, ABC):
    """Measures at every validation, and logs `probe/...`.

    The examples are the first of the validation data: the same at every validation and in every run on these data. Each
    is measured alone, without padding, in evaluation mode and in the precision of the parameters. Random state,
    gradients and buffers are left as they were, so that a run with probes trains as it would without, to the bit.

    Args:
        examples: how many, of every process.
    """

    changes_result: ClassVar[bool] = False

    def __init__(self, *, examples: Annotated[int, Ge(1)]) -> None:
        self.examples = examples
        self._kept: list[Batch] = []

    @abstractmethod
    def measure(self, task: Task, examples: list[Batch]) -> Mapping[str, Tensor]:
        """Numbers by name.

        Args:
            task: in evaluation mode.
            examples: batches of one sequence, without padding.
        """

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the first examples."""
        if batch_idx == 0:
            self._kept = []
        self._kept += single_examples(batch, self.examples - len(self._kept))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, and log."""
        assert isinstance(pl_module, Task)
        with trainer.precision_plugin.forward_context(), _without_side_effects(pl_module):
            found = self.measure(pl_module, self._kept)
        pl_module.log_dict({f"probe/{name}": value for name, value in found.items()}, sync_dist=True)
        self._kept = []


class AttentionProbe(Probe):
    """Measures every layer's attention; what is logged is the mean over the examples."""

    @abstractmethod
    def measure_call(self, call: AttentionCall) -> Mapping[str, Tensor]:
        """Numbers of one layer, by name: one, or one for each head."""

    def applies_to(self, task: Task, slot: str) -> bool:
        """Whether the attention in a slot has what is measured."""
        return True

    def measure(self, task: Task, examples: list[Batch]) -> Mapping[str, Tensor]:
        """Numbers by `measure/slot/layer` or `measure/slot/layer/head`."""
        found: dict[str, list[Tensor]] = {}
        for example in examples:
            for call in attention_calls(task.model, lambda example=example: task.step(task.prepare(example))):  # type: ignore[misc]
                if not self.applies_to(task, call.slot):
                    continue
                for name, values in self.measure_call(call).items():
                    path = f"{name}/{task.model.slots[call.slot].name}/layer{call.layer}"
                    each = {path: values} if values.ndim == 0 else _by_head(path, values)
                    for key, value in each.items():
                        found.setdefault(key, []).append(value)
        return {name: torch.stack(values).mean() for name, values in found.items()}


def single_examples(batch: Batch, most: int) -> list[Batch]:
    """The first sequences of a batch, each a batch of its own without padding."""
    return [_single(batch, row) for row in range(min(most, len(batch[0])))]


def _single(batch: Batch, row: int) -> Batch:
    kind: Any = type(batch)
    fields: dict[str, Any] = batch._asdict()
    cut: dict[str, Any] = {name: None if value is None else value[row : row + 1] for name, value in fields.items()}
    for name, mask in PADDED_WITH.items():
        if name in fields and fields.get(mask) is not None:
            cut[name] = cut[name][:, fields[mask][row]]
    single: Batch = kind(**{name: None if name.endswith("padding_mask") else value for name, value in cut.items()})
    return single


def _by_head(path: str, values: Tensor) -> dict[str, Tensor]:
    return {f"{path}/head{head}": value for head, value in enumerate(values)}


@contextmanager
def _without_side_effects(task: Task) -> Iterator[None]:
    """Evaluation mode, without autocast, and everything as it was afterwards."""
    training = task.training
    try:
        with preserving_state(task), torch.autocast(task.device.type, enabled=False):
            task.eval()
            yield
    finally:
        task.train(training)
