"""Patch embedding: a linear layer on the patches of an image (Dosovitskiy et al. 2021, equation 1)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xformer.core.embedding import Embedding
from xformer.core.linear import Linear


class PatchEmbedding(nn.Module):
    """Patch embedding: [x_class; x_1 E; ...; x_N E] for the N non-overlapping patches of an image, row by row.

    The position scheme adds the positions of equation 1. The images are normalised here, so that augmentation before
    sees values in [0, 1].

    Args:
        d_model: width of the vectors.
        patch_size: height and width of a patch, in pixels; it divides those of the images.
        mean: of each channel's values, over the training images.
        std: their standard deviation.
        class_token: whether to prepend a learned vector.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, d_model: int, patch_size: int, *, mean: Sequence[float], std: Sequence[float], class_token: bool
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.projection = Linear(len(mean) * patch_size**2, d_model)
        self.class_token = Embedding(1, d_model) if class_token else None
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32)[:, None, None])

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch length d_model"]:
        """Embed the patches of images."""
        vectors: Tensor = self.projection(self.patches((images - self.mean) / self.std))
        if self.class_token is None:
            return vectors
        first = self.class_token(torch.zeros(len(images), 1, dtype=torch.long, device=images.device))
        return torch.cat([first, vectors], dim=1)

    def patches(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch patches values"]:
        """Cut images into flat patches: channel by channel, row by row."""
        batch, channels, height, width = images.shape
        size = self.patch_size
        cut = images.reshape(batch, channels, height // size, size, width // size, size)
        return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * size**2)  # b h w c p p -> b (h w) (c p p)
