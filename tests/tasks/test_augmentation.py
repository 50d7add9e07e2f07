"""The mixtures against their formulas, and what RandAugment may change."""

from typing import Any

import pytest
import torch
from torch.nn.functional import one_hot
from torch.testing import assert_close

from xformer.data.batch import ImageBatch
from xformer.errors import ConfigError
from xformer.tasks.augmentation import Mixup, RandAugment


def test_mixup_is_its_formula() -> None:
    images, labels = torch.rand(64, 1, 4, 4), torch.arange(64) % 5
    mixed = Mixup(alpha=0.4)(ImageBatch(images, labels), 5)
    own = one_hot(labels, 5).float()
    assert_close(mixed.labels.sum(dim=1), torch.ones(64))
    shares = []
    for image, label, first, target in zip(mixed.images, mixed.labels, images, own, strict=True):
        # Whatever the partner and the share were, one pair of them must explain the image and the label at once.
        offset = (images - first).flatten(1)
        share = ((image - first).flatten() @ offset.T) / (offset**2).sum(dim=1).clamp(min=1e-12)
        rest = (first.flatten() + share[:, None] * offset - image.flatten()).abs().amax(dim=1)
        fits = (rest < 1e-5).nonzero().flatten()
        assert len(fits)
        explained = [(1 - share[i]) * target + share[i] * own[i] for i in fits]
        assert any(torch.allclose(found, label, atol=1e-4) for found in explained)
        shares.append(float(share[fits[0]]))
    assert all(-1e-4 <= share <= 1 + 1e-4 for share in shares)


def test_mixups_shares_are_betas() -> None:
    """Of two classes, one all white, a mixed image is its share: the moments of Beta(a, a) are 1/2 and 1/(8a+4)."""
    torch.manual_seed(0)
    labels = torch.arange(4000) % 2
    images = labels.float()[:, None, None, None].expand(-1, 1, 2, 2)
    mixed = Mixup(alpha=0.3)(ImageBatch(images, labels), 2)
    assert_close(mixed.images[:, 0, 0, 0], mixed.labels[:, 1])
    between = mixed.labels[:, 1][(mixed.labels[:, 1] > 0) & (mixed.labels[:, 1] < 1)]
    assert len(between) > 1800  # half of the pairs
    assert abs(float(between.mean()) - 0.5) < 0.03
    assert abs(float(between.var()) - 1 / (8 * 0.3 + 4)) < 0.01


@pytest.mark.parametrize("channels", [1, 3])
def test_rand_augment_changes_images_and_keeps_their_form(channels: int) -> None:
    images = torch.rand(16, channels, 8, 8)
    augment = RandAugment(operations=2, magnitude=15, without=[])
    for _ in range(20):
        changed = augment(images)
        assert changed.shape == images.shape
        assert 0 <= changed.min() <= changed.max() <= 1
    turned = RandAugment(operations=1, magnitude=15, without=_all_but("invert"))(images)
    assert_close(turned, 1 - images)


def _all_but(name: str) -> list[str]:
    documented = (RandAugment.__doc__ or "").split("policy is kornia's: ")[1].split(". There")[0]
    return [word for word in documented.replace("\n", " ").replace(" ", "").split(",") if word != name]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"operations": 1, "magnitude": 9, "without": ["flip"]}, "an unknown operation flip; valid: auto_contrast, "),
        ({"operations": 16, "magnitude": 9, "without": []}, r"operations=16 must be from 0 to 15"),
    ],
)
def test_an_impossible_augmentation_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        RandAugment(**options)


def test_nothing_is_imported_or_drawn_where_nothing_is_augmented() -> None:
    before = torch.get_rng_state()
    batch = ImageBatch(torch.rand(2, 1, 2, 2, generator=torch.Generator()), torch.tensor([0, 1]))
    assert Mixup(alpha=0.0)(batch, 2) is batch
    assert RandAugment(operations=0, magnitude=9, without=[])(batch.images) is batch.images
    assert torch.equal(torch.get_rng_state(), before)
