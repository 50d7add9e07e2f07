"""The base class of probes, which measure on fixed examples without affecting training."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from xformer.core import console
from xformer.data.batch import PADDED_WITH, Batch
from xformer.inspection.attention_calls import AttentionCall, LayerCall, layer_calls
from xformer.tasks.base import Task
from xformer.training.flops import preserving_state


class Probe(Callback, ABC):
    """Base class of callbacks that measure at every validation and log `probe/...`.

    The examples are the first of the validation data, the same at every validation and in every run on these data. Each
    is measured alone, without padding, in evaluation mode and in the precision of the parameters. Random state,
    gradients and buffers are restored, so that a run with probes is bit-identical to one without.

    Args:
        examples: the number of examples of every process.
    """

    changes_result: ClassVar[bool] = False

    def __init__(self, *, examples: Annotated[int, Ge(1)]) -> None:
        self.examples = examples
        self._kept: list[Batch] = []

    @abstractmethod
    def measure(self, task: Task, examples: list[Batch]) -> Mapping[str, Tensor]:
        """Numbers by name.

        Args:
            task: the task, in evaluation mode.
            examples: batches of one sequence, without padding.
        """

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Collect the first examples."""
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
    """Base class of probes that measure every layer's attention and log the mean over the examples.

    Layers without the measured quantity are skipped; the first measurement says which and why. They include all token
    mixers that own their projections, because these have no queries, keys and values.

    Args:
        examples: the number of examples of every process.
    """

    def __init__(self, *, examples: Annotated[int, Ge(1)]) -> None:
        super().__init__(examples=examples)
        self._announced = False

    @abstractmethod
    def measure_call(self, call: AttentionCall) -> Mapping[str, Tensor] | str:
        """One number of a layer, or one per head, by name; or a clause that says why the layer has none."""

    def slot_without(self, task: Task, slot: str) -> str | None:
        """A clause that says why no layer of a slot can be measured; None if layers may be measured."""
        return None

    def measure(self, task: Task, examples: list[Batch]) -> Mapping[str, Tensor]:
        """Numbers by `measure/slot/layer` or `measure/slot/layer/head`."""
        found: dict[str, list[Tensor]] = {}
        left_out: dict[str, dict[str, None]] = {}
        for example in examples:
            for layer in layer_calls(task.model, lambda example=example: task.step(task.prepare(example))):  # type: ignore[misc]
                place = f"{task.model.slots[layer.slot].name}/layer{layer.layer}"
                numbers = self._measure_layer(task, layer)
                if isinstance(numbers, str):
                    left_out.setdefault(numbers, {})[place] = None
                    continue
                for name, values in numbers.items():
                    path = f"{name}/{place}"
                    each = {path: values} if values.ndim == 0 else _by_head(path, values)
                    for key, value in each.items():
                        found.setdefault(key, []).append(value)
        if left_out and not self._announced:
            _announce(type(self).__name__, left_out)
        self._announced = True
        return {name: torch.stack(values).mean() for name, values in found.items()}

    def _measure_layer(self, task: Task, layer: LayerCall) -> Mapping[str, Tensor] | str:
        reason = self.slot_without(task, layer.slot)
        if reason is not None:
            return reason
        if layer.attention is None:
            return f"{layer.mixer.variant} owns its projections and state, so it has no weights"
        return self.measure_call(layer.attention)


@rank_zero_only
def _announce(probe: str, left_out: Mapping[str, Iterable[str]]) -> None:
    parts = [f"{', '.join(layers)}, because {reason}" for reason, layers in left_out.items()]
    console.info(f"{probe} skips {'; '.join(parts)}.")


def single_examples(batch: Batch, most: int) -> list[Batch]:
    """The first sequences of a batch, each as a batch of one without padding."""
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
    """Evaluation mode without autocast; all state is restored afterwards."""
    training = task.training
    try:
        with preserving_state(task), torch.autocast(task.device.type, enabled=False):
            task.eval()
            yield
    finally:
        task.train(training)
