"""Greedy decoding and sampling: with a state and without, in a batch and alone, for every causal variant."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.contracts.variants import attention_class, attention_factory, position_class
from tests.generation.tiny import (
    CAUSAL,
    END,
    LENGTH,
    PROMPTS,
    all_logits,
    continuing,
    decoder,
    encoder_decoder,
    forgetful,
    next_logits,
    prefixes,
    transducing,
)
from xformer.architecture.encoder_decoder import EncoderDecoder
from xformer.architecture.stack import Stack
from xformer.core.capability import Capability
from xformer.errors import DataError
from xformer.generation.choice import Sampling, most_likely
from xformer.generation.logits_processors import RepetitionPenalty, Temperature
from xformer.generation.prefixes import Prefixes
from xformer.generation.writing import stream, write

SCHEMES = ["learned", "rotary", "alibi", "relative", "transformer_xl", "t5"]
PAIRS = [(a, p) for a in CAUSAL for p in SCHEMES if position_class(p).needs in attention_class(a).provides]


def test_every_causal_attention_is_here_with_relative_positions() -> None:
    assert len(CAUSAL) > 5
    assert all(sum(a == name for a, _ in PAIRS) > 2 for name in CAUSAL)


def _check_every_step(rows: Prefixes, model: Stack | EncoderDecoder, written: Tensor) -> None:
    expected = [all_logits(model, prompt, row) for prompt, row in zip(PROMPTS, written, strict=True)]
    with torch.no_grad():
        for step, tokens in enumerate(written.T):
            logits = rows.logits()
            for row, one in enumerate(expected):
                assert_close(logits[row], one[step], atol=1e-5, rtol=1e-5)
            rows.append(tokens)


@pytest.mark.parametrize(("attention", "position"), PAIRS)
def test_every_step_has_the_logits_of_a_plain_forward_of_that_row_alone(attention: str, position: str) -> None:
    """Cached equals uncached, batched equals one by one, and a row that outgrows its model shows its last tokens."""
    factory = attention_factory(attention)
    written = torch.randint(3, 11, (3, LENGTH))
    for state in (True, False) if position in {"learned", "t5"} else (True,):
        model = decoder(factory if state else forgetful(factory), position)
        rows = continuing(model, PROMPTS, LENGTH)
        assert rows.incremental is state
        _check_every_step(rows, model, written)


@pytest.mark.parametrize("attention", CAUSAL)
@pytest.mark.parametrize("state", [True, False])
def test_a_target_has_the_logits_of_a_plain_forward_of_that_row_alone(attention: str, state: bool) -> None:
    position = "rotary" if Capability.ROTARY in attention_class(attention).provides else "t5"
    factory = attention_factory(attention)
    model = encoder_decoder(
        position="learned", decoder_position=position, decoder_attention=factory if state else forgetful(factory)
    )
    rows = transducing(model, PROMPTS, 8)
    assert rows.incremental is state
    _check_every_step(rows, model, torch.randint(3, 11, (3, 8)))


@pytest.mark.parametrize("state", [True, False])
@pytest.mark.parametrize("build", [decoder, encoder_decoder], ids=["decoder", "encoder_decoder"])
def test_reordered_rows_go_on_as_the_others_would(build, state: bool) -> None:
    factory = attention_factory("full")
    name = "attention" if build is decoder else "decoder_attention"
    model = build(**{name: factory if state else forgetful(factory)})
    written = torch.randint(3, 11, (3, 6))
    order = torch.tensor([2, 0, 0, 1, 2])
    rows = prefixes(model, PROMPTS, 6)
    with torch.no_grad():
        for step in range(3):
            rows.logits()
            rows.append(written[:, step])
        rows.logits()
        rows.reorder(order)
        rows.append(torch.tensor([3, 4, 5, 6, 7]))
        logits = rows.logits()
    for row, parent in enumerate(order.tolist()):
        history = torch.cat((written[parent, :3], torch.tensor([3 + row])))
        assert torch.equal(rows.written[row], history)
        assert_close(logits[row], next_logits(model, PROMPTS[parent], history), atol=1e-8, rtol=1e-8)


def _alone(model, prompt: Tensor, max_new: int) -> list[int]:
    """Greedy decoding by definition."""
    written: list[int] = []
    while len(written) < max_new and END not in written:
        logits = next_logits(model, prompt, torch.tensor(written, dtype=torch.long))
        written.append(int(logits.argmax()))
    return written


@pytest.mark.parametrize("build", [decoder, encoder_decoder], ids=["decoder", "encoder_decoder"])
def test_greedy_takes_the_most_likely_and_ends_at_the_end_token(build) -> None:
    model = build()
    expected = [_alone(model, prompt, 12) for prompt in PROMPTS]
    texts = write(prefixes(model, PROMPTS, 12), most_likely, end=END).tolist()
    for text, row in zip(texts, expected, strict=True):
        assert text[: len(row)] == row
        assert set(text[len(row) :]) <= {END}
    assert len(texts[0]) == max(map(len, expected))
    assert len(set(map(tuple, texts))) > 1, "the model must tell the prompts apart"


def test_nothing_is_written_after_all_have_ended() -> None:
    model = decoder()
    rows = continuing(model, PROMPTS, 9)
    steps = list(stream(rows, lambda logits: torch.full((3,), END), end=END))
    assert len(steps) == 1
    assert rows.written.shape == (3, 1)
    assert len(list(stream(continuing(model, PROMPTS, 9), lambda logits: torch.full((3,), END), end=None))) == 9


def test_a_stream_gives_each_token_before_the_next_is_computed() -> None:
    rows = continuing(decoder(), PROMPTS, 6)
    for step, tokens in enumerate(stream(rows, most_likely, end=None), start=1):
        assert rows.written.shape[1] == step
        assert torch.equal(rows.written[:, -1], tokens)
    assert step == 6


def test_a_sampled_row_depends_on_its_seed_and_not_on_the_batch() -> None:
    model = decoder()
    filters = [RepetitionPenalty(1.3), Temperature(2.0)]

    def sampled(prompts: list[Tensor], seeds: list[int]) -> list[list[int]]:
        draw = Sampling(seeds, 20, "cpu")
        return write(continuing(model, prompts, 20), draw, end=None, filters=filters).tolist()

    together = sampled(PROMPTS, [4, 5, 6])
    assert together == [sampled([prompt], [4 + row])[0] for row, prompt in enumerate(PROMPTS)]
    assert together == sampled(PROMPTS, [4, 5, 6])
    assert sampled([PROMPTS[0]], [7])[0] != together[0]
    one, other = sampled([PROMPTS[0]] * 2, [1, 2])
    assert one != other


def test_samples_have_the_probabilities_of_the_softmax() -> None:
    logits = torch.tensor([[0.0, 1.0, float("-inf"), 2.0, -1.0]]).expand(4000, -1)
    drawn = Sampling(range(4000), 2, "cpu")
    counts = (drawn(logits).bincount(minlength=5) + drawn(logits).bincount(minlength=5)) / 8000
    expected = logits[0].softmax(-1)
    assert counts[2] == 0
    assert_close(counts, expected, atol=4 * 0.5 / 8000**0.5, rtol=0)


def test_a_prompt_longer_than_the_model_is_refused() -> None:
    prompt = torch.randint(3, 11, (LENGTH + 1,))
    with pytest.raises(DataError, match=f"prompt has {LENGTH + 1} tokens, and the model reads {LENGTH} at most"):
        continuing(decoder(position="learned"), [prompt, prompt[:2]], 4)
    assert write(continuing(decoder(position="rotary"), [prompt], 4), most_likely, end=None).shape == (1, 4)
    with pytest.raises(DataError, match=f"source has {LENGTH + 1} tokens, and the model reads {LENGTH} at most"):
        transducing(encoder_decoder(position="learned"), [prompt], 4)
    assert write(transducing(encoder_decoder(), [prompt], 4), most_likely, end=None).shape == (1, 4)


def test_a_target_ends_where_its_decoder_has_no_more_places() -> None:
    rows = transducing(encoder_decoder(decoder_position="learned"), PROMPTS, 100)
    assert rows.max_new == LENGTH
    assert write(rows, most_likely, end=None).shape == (3, LENGTH)
    assert transducing(encoder_decoder(decoder_position="rotary"), PROMPTS, 100).max_new == 100
