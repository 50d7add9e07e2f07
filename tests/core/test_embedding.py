"""The scale of embeddings: unit variance read, and unit variance as an output layer."""

import pytest
import torch
from torch.testing import assert_close

from xformer.core.embedding import Embedding


def test_a_vector_is_a_row_times_the_root_of_its_width() -> None:
    table = Embedding(5, 16)
    assert_close(table(torch.tensor([[4, 0]])), table.weight[[4, 0]][None] * 4.0)


def test_what_is_read_and_what_a_tied_output_layer_gives_have_unit_variance() -> None:
    table = Embedding(4000, 64)
    assert table(torch.arange(4000)).std().item() == pytest.approx(1, rel=0.01)
    assert (torch.randn(100, 64) @ table.weight.T).std().item() == pytest.approx(1, rel=0.02)
