"""What every task shares: optimiser, schedule, metrics and logging. A task writes `step`."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Float, Int
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MetricCollection

from xformer.architecture.base import Architecture
from xformer.attention.base import Attention
from xformer.data.base import DataModule
from xformer.data.batch import IGNORED, Batch, count_tokens
from xformer.data.facts import Facts
from xformer.layers.stable_names import keep_stable_names
from xformer.optimization.optimizer import OptimizerFactory
from xformer.optimization.schedule import Schedule


class Outcome(NamedTuple):
    """What a step computes: the loss to minimise, and what the metrics compare."""

    loss: Float[Tensor, ""]
    logits: Float[Tensor, "*batch classes"]
    labels: Int[Tensor, "*batch"]


class Task(LightningModule, ABC):
    """A model with an objective.

    Args:
        facts: of the data.
        optimizer: builds the optimiser.
        schedule: the learning rate's factor at a step.
    """

    batch_type: ClassVar[type[Batch]]
    """The type of batch."""
    needs_causal: ClassVar[bool] = False
    """Whether the architecture must be causal."""
    transduces: ClassVar[bool] = False
    """Whether the architecture must write one sequence while it reads another."""

    model: Architecture
    compiled_step: Callable[[Any], Outcome] | None = None
    """What `step` was compiled to, for training alone: evaluation and decoding have other shapes."""

    def __init__(self, facts: Facts, optimizer: OptimizerFactory, schedule: Schedule) -> None:
        super().__init__()
        keep_stable_names(self)
        self._optimizer, self._schedule = optimizer, schedule
        self.train_metrics, self.val_metrics, self.test_metrics = (
            self.build_metrics(facts, f"{stage}/") for stage in ("train", "val", "test")
        )

    @abstractmethod
    def step(self, batch: Any) -> Outcome:
        """The loss of a prepared batch: tensors to tensors, so that training can compile it."""

    def prepare(self, batch: Any) -> Any:
        """What `step` reads in place of a batch of the data, such as a masked or an augmented one."""
        return batch

    def example(self, facts: Facts) -> Batch:
        """The smallest batch, of the longest sequence, to measure a model with."""
        kind: Any = self.batch_type
        example: Batch = kind.example(facts.length)
        return example

    def count_tokens(self, batch: Batch) -> Tensor:
        """The real tokens that the model reads of a batch, as a number on its device."""
        return count_tokens(batch)

    @abstractmethod
    def build_metrics(self, facts: Facts, prefix: str) -> MetricCollection:
        """The metrics of one stage; they are updated with logits and labels."""

    def on_train_start(self) -> None:
        """Find the attentions, which may prepare for a batch."""
        self._attentions = [module for module in self.modules() if isinstance(module, Attention)]

    def on_train_batch_start(self, batch: Batch, index: int) -> None:
        """Let the attentions prepare for a step: Performer redraws here, alike on all ranks."""
        for attention in self._attentions:
            attention.before_batch(self.trainer.global_step)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """One optimiser step's loss; logged, with the metrics, at every `trainer.log_every_n_steps`."""
        outcome = (self.compiled_step or self.step)(self.prepare(batch))
        if (self.trainer.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            shown = {"train/loss": outcome.loss, **self.train_metrics(outcome.logits.detach(), outcome.labels)}
            self.log_dict(shown, prog_bar=True, sync_dist=True)
        return outcome.loss

    def validation_step(self, batch: Batch, index: int) -> None:
        """One validation batch."""
        self._evaluate(batch, "val", self.val_metrics)

    def test_step(self, batch: Batch, index: int) -> None:
        """One test batch."""
        self._evaluate(batch, "test", self.test_metrics)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser, fused where torch allows, and the schedule by optimiser step."""
        # A fused step would unscale the gradients itself, too late to clip them.
        fused = self.device.type in {"cpu", "cuda", "mps"} and self.trainer.precision != "16-mixed"
        optimizer = self._optimizer(self, fused)
        # Nothing is scaled in the other precisions, but Lightning would refuse to clip before any fused step.
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
        total = int(self.trainer.estimated_stepping_batches)
        schedule = self._schedule
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, lambda step: schedule(step, total)), "interval": "step"},
        }

    def epilogue(self, data: DataModule) -> str | None:
        """What a person would like to see of the trained model."""
        return None

    def _evaluate(self, batch: Batch, stage: str, metrics: MetricCollection, suffix: str = "") -> None:
        outcome = self.step(self.prepare(batch))
        metrics.update(outcome.logits, outcome.labels)
        # Still on the device: to read it would be to wait for every batch.
        weight, shown = (outcome.labels != IGNORED).sum(), stage == "val"
        shared: dict[str, Any] = {"batch_size": weight, "prog_bar": shown, "add_dataloader_idx": False}
        self.log(f"{stage}/loss{suffix}", outcome.loss, sync_dist=True, **shared)
        self.log_dict(metrics, **shared)
