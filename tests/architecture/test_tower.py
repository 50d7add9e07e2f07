"""Positions, blocks and the last norm: what they share, and what a sequence that is too long is told."""

from functools import partial
from typing import Any

import pytest
import torch

from tests.architecture.tiny import LENGTH, stack, tokens
from xformer.architecture.encoder import Encoder
from xformer.attention.linformer import Linformer
from xformer.errors import DataError


def test_an_attention_can_share_with_the_first_layers() -> None:
    linformer = partial(Linformer, rank=4, sharing="layerwise", projection="learned")
    first, second = (mixer.mix for mixer in stack(Encoder, attention=linformer).tower.mixers[0])
    assert first.project_key is second.project_key


def test_shared_layers_keep_their_own_bias() -> None:
    model = stack(Encoder, position="relative", share_layers=True)
    inputs = tokens(2, 7)
    before = model(inputs)
    keys: Any = model.tower.position.keys
    assert len(keys) == 2
    with torch.no_grad():
        keys[1].copy_(torch.randn_like(keys[1]) * 3)
    assert (model(inputs) - before).abs().max() > 1e-4


def test_a_sequence_that_is_too_long_names_the_part() -> None:
    with pytest.raises(DataError, match="17 tokens came, and Learned was built for 16"):
        stack(Encoder, position="learned")(tokens(1, LENGTH + 1))
    assert stack(Encoder)(tokens(1, LENGTH + 1)).isfinite().all()
