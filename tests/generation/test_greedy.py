"""Greedy decoding in one call, against its definition."""

import pytest
import torch

from tests.generation.tiny import BEGIN, END, PROMPTS, encoder_decoder, greedily, head
from xformer.generation.greedy import greedy_decode
from xformer.generation.prefixes import pad_right


@pytest.mark.parametrize("max_new", [2, 12])
def test_each_target_is_the_most_likely_token_by_token_until_its_end(max_new: int) -> None:
    model = encoder_decoder()
    expected = [greedily(model, prompt, max_new) for prompt in PROMPTS]
    source, mask = pad_right(PROMPTS)
    written = greedy_decode(model, head(model), source, mask, begin=BEGIN, end=END, max_new=max_new)
    for row, text in zip(written.tolist(), expected, strict=True):
        assert row[: len(text)] == text
        assert set(row[len(text) :]) <= {END}
    assert written.shape == (len(PROMPTS), max(map(len, expected)))


def test_a_batch_without_padding_needs_no_mask() -> None:
    model, source = encoder_decoder(), torch.stack([PROMPTS[0], PROMPTS[0].flip(0)])
    settings = {"begin": BEGIN, "end": END, "max_new": 6}
    alone = greedy_decode(model, head(model), source, None, **settings)
    assert torch.equal(
        greedy_decode(model, head(model), source, torch.ones_like(source, dtype=torch.bool), **settings), alone
    )
