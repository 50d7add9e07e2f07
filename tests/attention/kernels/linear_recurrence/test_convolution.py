"""The short convolution is PyTorch's, over what is not padding."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from xformer.attention.kernels.linear_recurrence.convolution import ShortConvolution

FEATURES, LENGTH = 3, 11


def made(width: int, bias: bool) -> tuple[ShortConvolution, nn.Conv1d]:
    """Ours, and PyTorch's with the same numbers."""
    torch.manual_seed(0)
    ours = ShortConvolution(FEATURES, width, bias=bias).double()
    theirs = nn.Conv1d(FEATURES, FEATURES, width, groups=FEATURES, padding=width - 1, bias=bias).double()
    theirs.weight.data = ours.weight.data
    if ours.bias is not None:
        theirs.bias.data = ours.bias.data  # type: ignore[union-attr]
    return ours, theirs


def sequence(rows: int = 1) -> Tensor:
    return torch.randn(rows, LENGTH, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_is_pytorch_s_causal_convolution(width: int, bias: bool) -> None:
    (ours, theirs), x = made(width, bias), sequence()
    expected = theirs(x.mT)[..., :LENGTH].mT
    assert_close(ours(x, None, None)[0], expected)
    assert_close(ours(x, torch.ones(1, LENGTH, dtype=torch.bool), None)[0], expected)


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("cuts", [(1, 2, 3, 4, 11), (5, 11), (2, 9, 10, 11)])
def test_cut_anywhere_it_is_the_whole(width: int, cuts: tuple[int, ...]) -> None:
    (ours, _), x = made(width, True), sequence(2)
    past, parts, start = None, [], 0
    for end in cuts:
        y, past = ours(x[:, start:end], None, past)
        parts.append(y)
        start = end
    assert_close(torch.cat(parts, dim=1), ours(x, None, None)[0])
    assert past is not None
    assert past.shape == (2, width - 1, FEATURES)


@pytest.mark.parametrize("cuts", [(11,), (5, 11), (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)])
def test_padding_anywhere_is_as_if_it_were_not_there(cuts: tuple[int, ...]) -> None:
    (ours, _), x = made(4, True), sequence(4)
    valid = torch.ones(4, LENGTH, dtype=torch.bool)
    valid[0, :4] = valid[1, 7:] = valid[2, 3:6] = valid[2, 8] = valid[3] = False
    past, parts, start = None, [], 0
    for end in cuts:
        y, past = ours(x[:, start:end].masked_fill(~valid[:, start:end, None], 9.0), valid[:, start:end], past)
        parts.append(y)
        start = end
    found = torch.cat(parts, dim=1)
    assert found[~valid].abs().max() == 0
    for row in range(4):
        alone, last = ours(x[row : row + 1, valid[row]], None, None)
        assert_close(found[row, valid[row]], alone[0])
        assert past is not None
        assert_close(past[row], last[0])


def test_computes_in_float32() -> None:
    ours = ShortConvolution(FEATURES, 4).bfloat16()
    y, past = ours(sequence().bfloat16(), None, None)
    assert y.dtype is past.dtype is torch.float32


def test_gradcheck() -> None:
    (ours, _), x = made(4, True), sequence(2)[:, :5].requires_grad_()
    valid = torch.tensor([[True] * 5, [False, True, False, True, True]])
    assert torch.autograd.gradcheck(lambda x: ours(x, valid, None), x)
