"""One vector per sequence: the mean of what is real, or the first."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from xformer.layers.pooling import ClassTokenPooling, MeanPooling


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_the_mean_is_of_each_sequence_without_its_padding(lengths: list[int]) -> None:
    hidden = torch.randn(len(lengths), 6, 3)
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    pooled = MeanPooling().pool(hidden, mask)
    for row, length in enumerate(lengths):
        assert_close(pooled[row], hidden[row, :length].sum(0) / length)
    assert_close(MeanPooling().pool(hidden, None), hidden.sum(1) / 6)


def test_the_mean_adds_no_token() -> None:
    tokens, mask = torch.arange(6).view(2, 3), torch.ones(2, 3, dtype=torch.bool)
    assert MeanPooling().prepare(tokens, mask) == (tokens, mask)
    assert MeanPooling.extra_tokens == 0


def test_the_class_token_stands_in_front_is_never_padding_and_is_what_is_read() -> None:
    pooling = ClassTokenPooling(9)
    tokens, mask = torch.tensor([[1, 2], [3, 0]]), torch.tensor([[True, True], [True, False]])
    longer, real = pooling.prepare(tokens, mask)
    assert longer.tolist() == [[9, 1, 2], [9, 3, 0]]
    assert real.tolist() == [[True, True, True], [True, True, False]]
    assert longer.shape[1] == tokens.shape[1] + pooling.extra_tokens
    assert pooling.prepare(tokens, None)[1] is None
    hidden = torch.randn(2, 3, 4)
    assert_close(pooling.pool(hidden, real), torch.stack([hidden[0, 0], hidden[1, 0]]))
