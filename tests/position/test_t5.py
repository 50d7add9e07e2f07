"""T5's buckets against the published formula."""

import math

import pytest
import torch
from torch.testing import assert_close

from xformer.errors import ConfigError
from xformer.position.base import PositionContext
from xformer.position.t5 import T5


def t5(causal, buckets=32, max_distance=128):
    return T5(PositionContext(16, 4, 4, 2, 16, causal), buckets=buckets, max_distance=max_distance)


def published(distance, causal, buckets, max_distance):
    """The authors' `_relative_position_bucket`, for one distance."""
    bucket, n = 0, -distance
    if not causal:
        buckets //= 2
        bucket += (n < 0) * buckets
        n = abs(n)
    n = max(n, 0)
    exact = buckets // 2
    if n < exact:
        return bucket + n
    # The exact value lies on or off a whole number by far more than this.
    wide = exact + int(math.log(n / exact) / math.log(max_distance / exact) * (buckets - exact) + 1e-9)
    return bucket + min(wide, buckets - 1)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (32, 256), (8, 20), (4, 3), (12, 7)])
def test_buckets(causal, buckets, max_distance):
    distances = torch.cat((torch.arange(-3 * max_distance, 3 * max_distance), torch.tensor([10**6, -(10**6)])))
    expected = [published(int(distance), causal, buckets, max_distance) for distance in distances]

    assert t5(causal, buckets, max_distance).bias(0).bucket(distances).tolist() == expected


@pytest.mark.parametrize(
    ("causal", "distances", "buckets"),
    [
        (True, [5, 0, -15, -16, -18, -19, -20, -21, -112, -113, -999], [0, 0, 15, 16, 16, 17, 17, 18, 30, 31, 31]),
        (False, [0, -1, -7, -8, -11, -12, -15, -16, -90, -91, -500], [0, 1, 7, 8, 8, 9, 9, 10, 14, 15, 15]),
        (False, [1, 7, 8, 11, 12, 15, 16, 90, 91, 500], [17, 23, 24, 24, 25, 25, 26, 30, 31, 31]),
    ],
)  # fmt: skip
def test_buckets_worked_out_by_hand(causal, distances, buckets):
    assert t5(causal).bias(0).bucket(torch.tensor(distances)).tolist() == buckets


def test_table_is_shared_by_the_layers_and_gets_gradients():
    scheme, distances = t5(False), torch.arange(-200, 200).view(4, 100)
    table = scheme.bias(0).table(distances)

    assert table.shape == (4, 4, 100)
    assert scheme.bias(1).weight is scheme.bias(0).weight
    assert_close(table[2, 1, 3], scheme.weight[scheme.bias(0).bucket(distances)[1, 3], 2])
    table.sum().backward()
    # No distance but 0 is neither before nor after, so the half for keys after never uses its first row.
    unused = (scheme.weight.grad == 0).all(dim=1).nonzero().flatten().tolist()
    assert unused == [16]


def test_a_model_in_bfloat16_keeps_its_buckets():
    distances = torch.arange(-300, 300)
    assert torch.equal(t5(False).to(torch.bfloat16).bias(0).bucket(distances), t5(False).bias(0).bucket(distances))


@pytest.mark.parametrize(
    ("causal", "buckets", "max_distance"),
    [(True, 1, 128), (True, 7, 128), (False, 2, 128), (False, 6, 128), (True, 32, 16)],
)
def test_refuses_buckets_that_cannot_be_split(causal, buckets, max_distance):
    with pytest.raises(ConfigError, match=r"position\.(buckets|max_distance)="):
        t5(causal, buckets, max_distance)
