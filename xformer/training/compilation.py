"""The compiled training step: forward pass and loss as one graph, for few shapes of batches.

`Task.training_outcome` is compiled as a whole, and torch derives the backward pass from it. Logging, metrics, masking
and augmentation are not compiled, nor are validation, test and decoding, whose shapes would be compiled for a few
batches each. Weights keep their names, so that checkpoints of compiled and eager runs are interchangeable.

Padded batches vary in length. The dimension is marked as dynamic before compilation, so that torch makes one graph for
all lengths instead of one for the first and another for the rest. With CUDA graphs (`reduce-overhead`), which replay a
recording of one shape, batches are padded to one of `LENGTHS` lengths, and each length is recorded once.

A replay overwrites the results of the previous one. So the loss is copied, the logits are read before the next step,
and gradients are released before a new step begins. Clipping and the optimiser are outside of the recording: they take
a dozen fused kernels, whatever the size of the model, and read the learning rate as a number.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch.nn.functional import pad

from xformer.config.plan import GRAPHS
from xformer.data.base import DataModule
from xformer.data.batch import IGNORED, PADDED_WITH
from xformer.errors import ConfigError
from xformer.tasks.base import Outcome, Task

Compile = bool | Literal["reduce-overhead"]
"""The values of `compile` in conf/train.yaml."""
LENGTHS = 8
"""The number of lengths to which batches are padded for CUDA graphs; at most an eighth of the longest is added."""


def compile_step(task: Task, data: DataModule, mode: Compile, device: torch.device) -> None:
    """Replace the task's training step by a compiled one.

    Args:
        task: the task whose `compiled_step` is set; unchanged if `mode` is false.
        data: the loaded data, which decides the shapes of batches.
        mode: whether to compile, and whether to record CUDA graphs too.
        device: the device of the training.

    Raises:
        ConfigError: CUDA graphs without CUDA, or a processor without a C++ compiler.
    """
    if not mode:
        return
    if mode == GRAPHS and device.type != "cuda":
        raise ConfigError(
            f"compile={GRAPHS} records CUDA graphs, and this run trains on {device.type}: compile=true, or trainer=gpu "
            "where there is one, would work."
        )
    options: dict[str, Any] = {"triton.cudagraphs": mode == GRAPHS}
    if device.type == "cpu":
        if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
            raise ConfigError("compile=true needs a C++ compiler on a processor, such as g++, and none is installed.")
        options["fallback_random"] = True  # random numbers as uncompiled; the compiler's are slower
    step = torch.compile(task.training_outcome, options=options)
    if mode == GRAPHS:
        task.compiled_step = RecordedStep(step, task, data.spec.padding or 0)
    else:
        task.compiled_step = VaryingLengthStep(step, with_sequences=data.loader.tokens_per_batch is not None)


class VaryingLengthStep:
    """A training step that is compiled once for batches of any length.

    Args:
        step: the compiled step.
        with_sequences: whether the number of sequences varies too.
    """

    def __init__(self, step: Callable[[Any], Outcome], *, with_sequences: bool) -> None:
        self.step, self.with_sequences = step, with_sequences

    def __call__(self, batch: Any) -> Outcome:
        """The outcome of a prepared batch."""
        if self.with_sequences:
            for tensor in batch:
                if isinstance(tensor, torch.Tensor):
                    torch._dynamo.maybe_mark_dynamic(tensor, 0)
        for name in padded_fields(batch):
            torch._dynamo.maybe_mark_dynamic(getattr(batch, name), 1)
        return self.step(batch)


class RecordedStep(VaryingLengthStep):
    """A training step replayed from CUDA graphs, one for each of a few lengths.

    Args:
        step: the step compiled with CUDA graphs.
        task: the task whose gradients a replay overwrites.
        padding: the padding token.
    """

    def __init__(self, step: Callable[[Any], Outcome], task: Task, padding: int) -> None:
        super().__init__(step, with_sequences=False)
        self.task, self.padding = task, padding
        self.limits = dict.fromkeys(PADDED_WITH.values(), task.model.max_length)
        self.limits["target_padding_mask"] = task.model.max_target

    def __call__(self, batch: Any) -> Outcome:
        """The outcome of a prepared batch; its logits last until the next step."""
        self.task.zero_grad()
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        outcome = super().__call__(pad_to_recorded_length(batch, self.limits, self.padding))
        extra = outcome.auxiliary_loss
        return outcome._replace(loss=outcome.loss.clone(), auxiliary_loss=None if extra is None else extra.clone())


def pad_to_recorded_length(batch: Any, limits: Mapping[str, int], padding: int) -> Any:
    """Pad a batch to one of `LENGTHS` lengths; a batch without padding is returned unchanged.

    The sequences of a batch with several, such as source and target, are padded together, so that the combinations of
    lengths do not multiply.

    Args:
        batch: one of `xformer.data.batch`.
        limits: the longest sequence, by the name of its mask.
        padding: the padding token.
    """
    fields = padded_fields(batch)
    if not fields:
        return batch
    widths = {name: getattr(batch, name).shape[1] for name in fields.values()}
    portion = -(-max(limits[name] for name in widths) // (8 * LENGTHS)) * 8  # kernels are faster with rows aligned to 8
    portions = max(-(-width // portion) for width in widths.values())
    room = {name: max(0, min(portions * portion, limits[name]) - width) for name, width in widths.items()}
    values = {"labels": IGNORED, **dict.fromkeys(widths, False)}
    filled = {
        name: pad(getattr(batch, name), (0, room[mask]), value=values.get(name, padding))
        for name, mask in fields.items()
    }
    return batch._replace(**filled)


def padded_fields(batch: Any) -> dict[str, str]:
    """The fields of a batch whose second dimension is padded, masks included, each with the name of its mask."""
    present = {name for name in batch._fields if getattr(batch, name) is not None}
    found = {name: mask for name, mask in PADDED_WITH.items() if name in present and mask in present}
    return found | {mask: mask for mask in found.values()}
