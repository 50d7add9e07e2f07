"""Image classification by a Vision Transformer (Dosovitskiy et al. 2021)."""

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Interval
from jaxtyping import Float
from torch import Tensor
from torchmetrics import MetricCollection

from xformer.architecture.base import ArchitectureFactory
from xformer.core.linear import Linear
from xformer.data.batch import Batch, ImageBatch
from xformer.data.spec import DataSpec, ImageSpec
from xformer.errors import ConfigError
from xformer.layers.patches import PatchEmbedding
from xformer.layers.pooling import PoolingName
from xformer.optimization.optimizer import OptimizerFactory
from xformer.optimization.schedule import Schedule
from xformer.tasks.augmentation import Augmentation
from xformer.tasks.base import Outcome, Task
from xformer.tasks.losses import cross_entropy
from xformer.tasks.metrics import classification_metrics


class ImageClassification(Task):
    """Image classification by patches, a stack, a pooling and a linear layer, trained on cross-entropy.

    Augmentation changes only training batches, on their device.

    Args:
        spec: the specification of images with classes.
        architecture: builds the stack.
        optimizer: builds the optimiser.
        schedule: the factor on the learning rate at each step.
        patch_size: height and width of a patch, in pixels; a token is a patch.
        pooling: `mean` over the patches, or the state of a learned, prepended `class` token.
        label_smoothing: the probability spread over all classes in the targets, only in training.
        augmentation: the augmentation of training images.

    Raises:
        ConfigError: patches do not fill the images, a class token precedes a causal stack, where it would see only
            itself, or the label smoothing is out of range.
    """

    batch_type: ClassVar[type[Batch]] = ImageBatch

    def __init__(
        self,
        spec: DataSpec,
        architecture: ArchitectureFactory,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        *,
        patch_size: Annotated[int, Ge(1)],
        pooling: PoolingName,
        label_smoothing: Annotated[float, Interval(ge=0, lt=1)],
        augmentation: Augmentation,
    ) -> None:
        super().__init__(spec, optimizer, schedule)
        assert spec.image is not None
        assert spec.classes is not None
        image, class_token = spec.image, pooling == "class"
        self.tokens_per_image = _patches(image, patch_size)
        self.model = architecture(
            lambda d_model: PatchEmbedding(
                d_model, patch_size, mean=image.mean, std=image.std, class_token=class_token
            ),
            self.tokens_per_image + class_token,
        )
        if class_token and self.model.causal:
            raise ConfigError(
                "task.pooling=class reads the first token, which sees no other token in a causal architecture; "
                "task.pooling=mean would work."
            )
        self.head = Linear(self.model.size.d_model, spec.classes)
        self.classes, self.class_token, self.label_smoothing = spec.classes, class_token, label_smoothing
        self.rand_augment, self.mixup = augmentation.rand_augment, augmentation.mixup

    def build_metrics(self, spec: DataSpec, prefix: str) -> MetricCollection:
        """Accuracy, and the mean over the classes of their F1."""
        assert spec.classes is not None
        return classification_metrics(spec.classes, prefix)

    def example(self, spec: DataSpec) -> ImageBatch:
        """A batch of one image, for measuring the model's cost."""
        assert spec.image is not None
        images = torch.zeros(1, spec.image.channels, spec.image.height, spec.image.width)
        return ImageBatch(images, torch.zeros(1, dtype=torch.long))

    def count_tokens(self, batch: Batch) -> Tensor:
        """The number of patches in a batch."""
        assert isinstance(batch, ImageBatch)
        return torch.full((), len(batch.images) * self.tokens_per_image, device=batch.images.device)

    def prepare(self, batch: ImageBatch) -> ImageBatch:
        """Augment images in training; in evaluation, return them unchanged."""
        if not self.training:
            return batch
        return self.mixup(batch._replace(images=self.rand_augment(batch.images)), self.classes)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """The logits of a batch."""
        hidden = self.model(images)
        logits: Tensor = self.head(hidden[:, 0] if self.class_token else hidden.mean(dim=1))
        return logits

    def step(self, batch: ImageBatch) -> Outcome:
        """Compute the cross-entropy in nats; metrics use a mixed image's most probable class."""
        logits = self(batch.images)
        smoothing = self.label_smoothing if self.training else 0.0
        labels = batch.labels if batch.labels.ndim == 1 else batch.labels.argmax(dim=1)
        return Outcome(cross_entropy(logits, batch.labels, label_smoothing=smoothing), logits, labels)


def _patches(image: ImageSpec, size: int) -> int:
    """The number of patches in an image.

    Raises:
        ConfigError: `patch_size` does not divide the images' height and width.
    """
    smaller = min(image.height, image.width)
    fitting = [n for n in range(1, smaller + 1) if image.height % n == 0 and image.width % n == 0]
    if size not in fitting:
        raise ConfigError(
            f"task.patch_size={size} does not divide images of {image.height} x {image.width} pixels; "
            f"{', '.join(map(str, fitting))} would work."
        )
    return (image.height // size) * (image.width // size)
