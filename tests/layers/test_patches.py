"""From an image to a sequence, against a convolution."""

import pytest
import torch
from torch.nn.functional import conv2d
from torch.testing import assert_close

from xformer.data.spec import ImageSpec
from xformer.layers.patches import PatchEmbedding


@pytest.mark.parametrize("class_token", [False, True])
def test_patches_are_a_convolution_of_normalised_images(class_token: bool) -> None:
    form = ImageSpec(channels=3, height=6, width=9, mean=[0.1, 0.2, 0.3], std=[0.5, 1.0, 2.0])
    embedding = PatchEmbedding(7, 3, mean=form.mean, std=form.std, class_token=class_token)
    images = torch.rand(2, 3, 6, 9)
    normal = torch.stack([(images[:, c] - form.mean[c]) / form.std[c] for c in range(3)], dim=1)
    kernel = embedding.projection.weight.reshape(7, 3, 3, 3)
    expected = conv2d(normal, kernel, embedding.projection.bias, stride=3).flatten(2).transpose(1, 2)
    vectors = embedding(images)
    assert_close(vectors[:, class_token:], expected)
    if class_token:
        assert_close(vectors[:, 0], embedding.class_token(torch.zeros(2, dtype=torch.long)))  # type: ignore[misc]
