"""ALiBi against the published slopes."""

import pytest
import torch
from torch.testing import assert_close

from xformer.position.alibi import ALiBi
from xformer.position.base import PositionContext


def alibi(heads, causal=True):
    return ALiBi(PositionContext(heads * 4, heads, 4, 1, 16, causal))


EIGHT = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
PUBLISHED = {
    1: [2**-8],
    2: [2**-4, 2**-8],
    4: [2**-2, 2**-4, 2**-6, 2**-8],
    6: [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3],
    8: EIGHT,
    12: [*EIGHT, 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5],
    16: [2 ** (-k / 2) for k in range(1, 17)],
}


@pytest.mark.parametrize(("heads", "slopes"), PUBLISHED.items())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_slopes(heads, slopes, dtype):
    assert_close(alibi(heads).to(dtype).bias(0).slopes, torch.tensor(slopes))


@pytest.mark.parametrize("heads", [3, 5, 7, 9, 20, 25, 40])
def test_slopes_are_those_of_the_authors_code(heads):
    def authors(n):
        if (n & (n - 1)) == 0:
            start = 2 ** (-(2 ** -(n.bit_length() - 1 - 3)))
            return [start * start**i for i in range(n)]
        below = 2 ** (n.bit_length() - 1)
        return authors(below) + authors(2 * below)[0::2][: n - below]

    assert_close(alibi(heads).bias(0).slopes, torch.tensor(authors(heads)))


def test_table():
    bias = alibi(2).bias(0)
    distances = torch.tensor([[-3, 0], [2, -70000]])
    expected = -torch.tensor([2**-4, 2**-8])[:, None, None] * torch.tensor([[3.0, 0.0], [2.0, 70000.0]])

    assert_close(bias.table(distances), expected)
