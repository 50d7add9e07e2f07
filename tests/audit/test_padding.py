"""Content of padding, its being there, and gradients: each fault by itself."""

import pytest
import torch

from tests.audit.made import subject
from xformer.audit import padding
from xformer.audit.evidence import Unmeasurable


@pytest.mark.parametrize("side", ["left", "right"])
def test_content_and_presence_are_told_apart(side: padding.Side) -> None:
    assert padding.content(subject("ValuesAlone"), 9, 3, 0, side=side).fails
    counts = subject("CountsPadding")
    assert not padding.content(counts, 9, 3, 0, side=side).fails
    assert padding.alone(counts, 9, 3, 0, side=side).fails


def test_gradients_are_those_of_float32() -> None:
    found = padding.gradient(subject("NoNumbers"), 4, 1, 0, side="left")
    assert found.error == float("inf")
    assert not padding.gradient(subject("Right"), 4, 1, 0, side="left").fails


def test_a_mask_is_true_at_tokens() -> None:
    right = torch.tensor([[True, True, False], [True, False, False]])
    torch.testing.assert_close(padding.mask([2, 1], 3, "right"), right)
    torch.testing.assert_close(padding.mask([2, 1], 3, "left"), right.flip(-1))


def test_one_token_has_no_room_for_padding() -> None:
    with pytest.raises(Unmeasurable):
        padding.content(subject("Right"), 1, 1, 0, side="left")
