"""Greedy decoding and streams: what is written, when, and where it ends."""

import pytest
import torch

from tests.generation.tiny import (
    END,
    PROMPTS,
    continuing,
    decoder,
    encoder_decoder,
    greedily,
    prefixes,
)
from xformer.generation.generate import generate_tokens, stream_tokens
from xformer.generation.sampling import most_likely


@pytest.mark.parametrize("build", [decoder, encoder_decoder], ids=["decoder", "encoder_decoder"])
def test_greedy_takes_the_most_likely_and_ends_at_the_end_token(build) -> None:
    model = build()
    expected = [greedily(model, prompt, 12) for prompt in PROMPTS]
    texts = generate_tokens(prefixes(model, PROMPTS, 12), most_likely, end=END).tolist()
    for text, row in zip(texts, expected, strict=True):
        assert text[: len(row)] == row
        assert set(text[len(row) :]) <= {END}
    assert len(texts[0]) == max(map(len, expected))
    assert len(set(map(tuple, texts))) > 1, "the model must tell the prompts apart"


def test_nothing_is_written_after_all_have_ended() -> None:
    model = decoder()
    rows = continuing(model, PROMPTS, 9)
    steps = list(stream_tokens(rows, lambda logits: torch.full((3,), END), end=END))
    assert len(steps) == 1
    assert rows.written.shape == (3, 1)
    assert len(list(stream_tokens(continuing(model, PROMPTS, 9), lambda logits: torch.full((3,), END), end=None))) == 9


def test_a_stream_gives_each_token_before_the_next_is_computed() -> None:
    rows = continuing(decoder(), PROMPTS, 6)
    for step, tokens in enumerate(stream_tokens(rows, most_likely, end=None), start=1):
        assert rows.written.shape[1] == step
        assert torch.equal(rows.written[:, -1], tokens)
    assert step == 6
