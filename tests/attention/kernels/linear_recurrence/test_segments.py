"""Decays between tokens, against products of decays."""

import torch
from torch.testing import assert_close

from xformer.attention.kernels.linear_recurrence.segments import (
    decay_between,
    decay_from_start,
    decay_to_end,
    in_chunks,
)


def test_decays_are_products_of_the_tokens_between() -> None:
    decay = torch.rand(2, 7, 3, dtype=torch.float64)
    between, start, end = (of(decay.log()) for of in (decay_between, decay_from_start, decay_to_end))
    for i in range(7):
        assert_close(start[:, i], decay[:, : i + 1].prod(dim=1))
        assert_close(end[:, i], decay[:, i + 1 :].prod(dim=1))
        for j in range(7):
            expected = decay[:, j + 1 : i + 1].prod(dim=1) if j <= i else torch.zeros(2, 3, dtype=torch.float64)
            assert_close(between[:, i, j], expected)


def test_decays_of_nothing_are_zero_and_not_nan() -> None:
    decays = torch.full((1, 4, 1), -1e30)
    assert_close(decay_between(decays)[0, ..., 0], torch.eye(4))
    assert_close(decay_to_end(decays)[0, :, 0], torch.tensor([0.0, 0.0, 0.0, 1.0]))


def test_chunks_hold_all_tokens_and_zeros() -> None:
    x = torch.arange(1.0, 151.0).view(1, 1, 150, 1)
    (chunks,) = in_chunks(64, x)
    assert chunks.shape == (1, 1, 3, 64, 1)
    assert_close(chunks.flatten()[:150], x.flatten())
    assert chunks.flatten()[150:].abs().max() == 0
    assert [in_chunks(64, x[:, :, :n])[0].shape[3] for n in (1, 2, 3, 5, 33, 64)] == [1, 2, 4, 8, 64, 64]
