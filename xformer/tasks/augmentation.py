"""Augmentation of training images, by kornia: RandAugment (Cubuk et al. 2020) and Mixup (Zhang et al. 2018).

Everything is drawn from torch's global generator, which a checkpoint stores, so a resumed run goes on exactly. kornia
is imported only where something is to be augmented.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Interval
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Beta
from torch.nn.functional import one_hot

from xformer.data.batch import ImageBatch
from xformer.errors import ConfigError


class RandAugment:
    """RandAugment: a few random operations applied in sequence, all of one magnitude.

    The operations are drawn for a batch and not for each image, as the paper does; signs are drawn for each image. The
    policy is kornia's: auto_contrast, equalize, invert, rotate, posterize, solarize, solarize_add, color, contrast,
    brightness, sharpness, shear_x, shear_y, translate_x, translate_y. There are no flips.

    Args:
        operations: the number of operations; 0 for none.
        magnitude: from 1 to 29.
        without: operations to leave out, such as invert.

    Raises:
        ConfigError: an operation is unknown, or `operations` is larger than their number.
    """

    def __init__(
        self, *, operations: Annotated[int, Ge(0)], magnitude: Annotated[int, Interval(ge=1, le=29)], without: list[str]
    ) -> None:
        self._augment: Any = None
        if operations == 0:
            return
        from kornia.augmentation.auto import RandAugment as Kornias
        from kornia.augmentation.auto.rand_augment.rand_augment import default_policy

        names = [policy[0][0] for policy in default_policy]
        unknown = [name for name in without if name not in names]
        if unknown:
            raise ConfigError(
                f"task.augmentation.rand_augment.without={without} has an unknown operation {unknown[0]}; valid: "
                f"{', '.join(names)}."
            )
        policy = [policy for policy in default_policy if policy[0][0] not in without]
        if operations > len(policy):
            raise ConfigError(
                f"task.augmentation.rand_augment.operations={operations} must be from 0 to {len(policy)}, the policy."
            )
        self._augment = Kornias(n=operations, m=magnitude, policy=policy)

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Augment images with values in [0, 1]."""
        if self._augment is None:
            return images
        # Some operations are only defined for colours; they keep equal channels equal.
        changed: Tensor = self._augment(images.expand(-1, 3, -1, -1))
        return changed[:, : images.shape[1]].clamp(0, 1)


class Mixup:
    """Mixup: each image is mixed with another of the batch, and its label likewise.

    x = (1 - l) x_i + l x_j and y = (1 - l) y_i + l y_j, with l ~ Beta(alpha, alpha) for each image, where the paper's
    code draws one for the batch.

    Args:
        alpha: strength; 0 for none.
    """

    def __init__(self, *, alpha: Annotated[float, Ge(0)]) -> None:
        self._mix: Any = None
        if alpha > 0:
            from kornia.augmentation import RandomMixUpV2

            self._mix = RandomMixUpV2(data_keys=["input", "class"])
            self._shares = Beta(torch.tensor(float(alpha)), torch.tensor(float(alpha)))

    @torch.no_grad()
    def __call__(self, batch: ImageBatch, classes: int) -> ImageBatch:
        """Mix a batch; its labels become a probability for every class."""
        if self._mix is None:
            return batch
        # Beside the pairs, kornia would draw uniform shares, which is Beta(1, 1).
        drawn = self._mix.forward_parameters(batch.images.shape)
        drawn["mixup_lambdas"] = self._shares.sample((len(batch.images),))
        images, labels = self._mix(batch.images, batch.labels, params=drawn)
        share = labels[:, 2:]
        one_hot_labels, other = (one_hot(labels[:, column].long(), classes) for column in (0, 1))
        return ImageBatch(images, (1 - share) * one_hot_labels + share * other)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The augmentation of training images: RandAugment, Mixup or both.

    Attributes:
        rand_augment: changes each image.
        mixup: then mixes images and their classes.
    """

    rand_augment: RandAugment
    mixup: Mixup
