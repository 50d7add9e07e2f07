"""Features as heads and back."""

import math

import pytest
import torch
from torch.testing import assert_close

from xformer.attention.kernels.linear_recurrence.heads import (
    blank_padding,
    merge_heads,
    scaled_head_dim,
    split_heads,
)
from xformer.core.mask import Mask
from xformer.errors import ConfigError


def test_heads_are_neighbouring_features() -> None:
    x = torch.arange(2 * 3 * 8.0).view(2, 3, 8)
    heads = split_heads(x, 4)
    assert heads.shape == (2, 4, 3, 2)
    assert_close(heads[1, 2, 0], x[1, 0, 4:6])
    assert_close(merge_heads(heads), x)


def test_nothing_of_padding_is_left() -> None:
    x, valid = torch.tensor([[[1.0], [math.nan], [math.inf]]]), torch.tensor([[True, False, False]])
    positions = torch.arange(3)[None]
    assert_close(blank_padding(x, Mask(positions, positions, True, valid)), torch.tensor([[[1.0], [0.0], [0.0]]]))
    assert blank_padding(x, Mask(positions, positions, True)) is x


def test_a_scaled_head_has_whole_features() -> None:
    assert [scaled_head_dim(12, "attention.expand_key", scale) for scale in (0.5, 1 / 3, 1.0, 2.0)] == [6, 4, 12, 24]
    for scale in (0.3, 0.01):
        with pytest.raises(ConfigError, match=rf"attention.expand_key={scale} of the 12 features"):
            scaled_head_dim(12, "attention.expand_key", scale)
