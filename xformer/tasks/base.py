"""The base class of tasks: optimiser, schedule, metrics and logging. Subclasses implement `step`."""

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
from xformer.attention.mixer import TokenMixer
from xformer.data.base import DataModule
from xformer.data.batch import IGNORED, Batch, count_tokens
from xformer.data.spec import DataSpec
from xformer.layers.stable_names import keep_stable_names
from xformer.optimization.optimizer import OptimizerFactory
from xformer.optimization.schedule import Schedule


class Outcome(NamedTuple):
    """The result of a step: the loss, and the logits and labels for the metrics."""

    loss: Float[Tensor, ""]
    logits: Float[Tensor, "*batch classes"]
    labels: Int[Tensor, "*batch"]
    auxiliary_loss: Float[Tensor, ""] | None = None
    """The sum of the token mixers' auxiliary losses; None without any."""


class Task(LightningModule, ABC):
    """A model with an objective, as a LightningModule.

    Args:
        spec: the specification of the data.
        optimizer: builds the optimiser.
        schedule: the factor on the learning rate at each step.
    """

    batch_type: ClassVar[type[Batch]]
    """The type of batch."""
    needs_causal: ClassVar[bool] = False
    """Whether the architecture must be causal."""
    transduces: ClassVar[bool] = False
    """Whether the architecture must generate one sequence from another."""

    model: Architecture
    compiled_step: Callable[[Any], Outcome] | None = None
    """The compiled `training_outcome`; evaluation and decoding, which have other shapes, are not compiled."""

    def __init__(self, spec: DataSpec, optimizer: OptimizerFactory, schedule: Schedule) -> None:
        super().__init__()
        keep_stable_names(self)
        self._optimizer, self._schedule = optimizer, schedule
        self.train_metrics, self.val_metrics, self.test_metrics = (
            self.build_metrics(spec, f"{stage}/") for stage in ("train", "val", "test")
        )

    @abstractmethod
    def step(self, batch: Any) -> Outcome:
        """Compute the loss of a prepared batch, from tensors to tensors, so that it can be compiled."""

    def training_outcome(self, batch: Any) -> Outcome:
        """`step` plus the auxiliary losses of the model's token mixers; training compiles this function."""
        return self.step(batch)._replace(auxiliary_loss=self.model.pop_auxiliary_loss() if self.training else None)

    def prepare(self, batch: Any) -> Any:
        """Prepare a batch for `step`, for example by masking or augmentation."""
        return batch

    def example(self, spec: DataSpec) -> Batch:
        """A batch of one sequence of maximum length, for measuring a model's cost."""
        kind: Any = self.batch_type
        example: Batch = kind.example(spec.length)
        return example

    def count_tokens(self, batch: Batch) -> Tensor:
        """The number of tokens without padding that the model reads of a batch, on the batch's device."""
        return count_tokens(batch)

    @abstractmethod
    def build_metrics(self, spec: DataSpec, prefix: str) -> MetricCollection:
        """Create the metrics of one stage, which are updated with logits and labels."""

    def on_train_start(self) -> None:
        """Collect the token mixers, which may prepare for each batch."""
        self._mixers = [module for module in self.modules() if isinstance(module, TokenMixer)]

    def on_train_batch_start(self, batch: Batch, index: int) -> None:
        """Call `before_batch` of the token mixers: Performer redraws its features here, equally on all ranks."""
        for mixer in self._mixers:
            mixer.before_batch(self.trainer.global_step)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Compute the training loss; it is logged with the metrics every `trainer.log_every_n_steps`."""
        outcome = (self.compiled_step or self.training_outcome)(self.prepare(batch))
        extra = outcome.auxiliary_loss
        if (self.trainer.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            shown = {"train/loss": outcome.loss, **self.train_metrics(outcome.logits.detach(), outcome.labels)}
            if extra is not None:
                shown["train/auxiliary_loss"] = extra
            self.log_dict(shown, prog_bar=True, sync_dist=True)
        return outcome.loss if extra is None else outcome.loss + extra

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
        """A short sample of the trained model's output, printed after training."""
        return None

    def _evaluate(self, batch: Batch, stage: str, metrics: MetricCollection, suffix: str = "") -> None:
        outcome = self.step(self.prepare(batch))
        metrics.update(outcome.logits, outcome.labels)
        # Still on the device: to read it would be to wait for every batch.
        weight, shown = (outcome.labels != IGNORED).sum(), stage == "val"
        shared: dict[str, Any] = {"batch_size": weight, "prog_bar": shown, "add_dataloader_idx": False}
        self.log(f"{stage}/loss{suffix}", outcome.loss, sync_dist=True, **shared)
        self.log_dict(metrics, **shared)
