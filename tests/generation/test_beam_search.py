"""Beam search against its definitions: greedy, exhaustive search, rescoring, and itself in other circumstances."""

import itertools

import pytest
import torch
from jaxtyping import Int
from torch import Tensor
from torch.testing import assert_close

from tests.contracts.variants import attention_factory
from tests.generation.tiny import (
    CAUSAL,
    END,
    PROMPTS,
    all_logits,
    continuing,
    decoder,
    encoder_decoder,
    forgetful,
    prefixes,
)
from xformer.core.state import State
from xformer.errors import ConfigError
from xformer.generation.beam_search import Hypotheses, beam_search
from xformer.generation.generate import generate_tokens
from xformer.generation.logits_processors import RepetitionPenalty
from xformer.generation.prefixes import Prefixes
from xformer.generation.sampling import most_likely

BUILDS = pytest.mark.parametrize("build", [decoder, encoder_decoder], ids=["decoder", "encoder_decoder"])


class Toy(Prefixes):
    """Next-token probabilities from a table of what was written so far."""

    incremental = False
    states: list[State] | None = None

    def __init__(self, prompts: int, max_new: int, vocabulary: int = 3, seed: int = 0) -> None:
        super().__init__(torch.arange(prompts)[:, None], None, max_new)
        self.vocabulary, self.seed = vocabulary, seed

    def row(self, tokens: tuple[int, ...]) -> Tensor:
        generator = torch.Generator().manual_seed(hash((self.seed, *tokens)) % 2**60)
        return 2 * torch.randn(self.vocabulary, generator=generator, dtype=torch.float64)

    def logits(self) -> Tensor:
        return torch.stack([self.row(tuple(row)) for row in self.tokens.tolist()])


def exhaustive(toy: Toy, prompt: int, alpha: float) -> list[tuple[float, tuple[int, ...]]]:
    """Every text that ends, or has no more room, with its score, best first."""
    found = []
    for length in range(1, toy.max_new + 1):
        for text in itertools.product(range(toy.vocabulary), repeat=length):
            if END in text[:-1] or (text[-1] != END and length < toy.max_new):
                continue
            steps = (toy.row((prompt, *text[:at])).log_softmax(-1)[text[at]] for at in range(length))
            found.append((float(sum(steps)) / length**alpha, text))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 2.0, -0.5])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_as_wide_as_the_space_is_exhaustive_search(alpha: float, seed: int) -> None:
    toy = Toy(2, 4, seed=seed)
    expected = [exhaustive(toy, prompt, alpha) for prompt in range(2)]
    beams = len(expected[0])
    found = beam_search(toy, beams=beams, end=END, length_penalty=alpha)
    for prompt in range(2):
        texts = [
            tuple(row[:length].tolist())
            for row, length in zip(found.tokens[prompt], found.lengths[prompt], strict=True)
        ]
        assert texts == [text for _, text in expected[prompt]]
        assert_close(found.scores[prompt], torch.tensor([score for score, _ in expected[prompt]], dtype=torch.float64))


def test_a_beam_wider_than_the_space_finds_what_there_is() -> None:
    toy = Toy(1, 2)
    expected = exhaustive(toy, 0, 1.0)
    found = beam_search(toy, beams=20, end=END)
    assert (found.lengths[0] > 0).sum() == len(expected)
    assert (found.scores[0, len(expected) :] == float("-inf")).all()


def test_the_length_penalty_decides_between_short_and_long() -> None:
    lengths = [
        beam_search(Toy(20, 5), beams=6, end=END, length_penalty=alpha).lengths[:, 0].float().mean()
        for alpha in (-2.0, 0.0, 2.0)
    ]
    assert lengths[0] < lengths[1] < lengths[2]


def test_an_early_stop_takes_the_first_to_finish() -> None:
    calls = []

    class Counting(Toy):
        def logits(self) -> Tensor:
            calls.append(self.length)
            return super().logits()

    best = beam_search(Counting(1, 8, seed=2), beams=2, end=END, length_penalty=2.0)
    searched = len(calls)
    calls.clear()
    first = beam_search(Counting(1, 8, seed=2), beams=2, end=END, length_penalty=2.0, early_stop=True)
    assert len(calls) < searched
    assert (first.lengths > 0).all()
    assert first.scores[0, 0] <= best.scores[0, 0]
    assert first.lengths.max() == len(calls)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@BUILDS
def test_one_beam_is_greedy(build, alpha: float) -> None:
    model = build()
    found = beam_search(prefixes(model, PROMPTS, 12), beams=1, end=END, length_penalty=alpha)
    greedy = generate_tokens(prefixes(model, PROMPTS, 12), most_likely, end=END)
    assert torch.equal(found.tokens[:, 0, : greedy.shape[1]], greedy)
    assert (found.tokens[:, 0, greedy.shape[1] :] == END).all()


def rescored(model, prompt: Tensor, text: Int[Tensor, " length"]) -> Tensor:
    log_probabilities = all_logits(model, prompt, text)[:-1].log_softmax(-1)
    return log_probabilities.gather(1, text[:, None]).sum()


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@BUILDS
def test_scores_equal_a_rescoring_pass(build, alpha: float) -> None:
    model = build()
    found = beam_search(prefixes(model, PROMPTS, 10), beams=4, end=END, length_penalty=alpha)
    for prompt, texts, lengths, scores in zip(PROMPTS, *found, strict=True):
        assert len({tuple(text.tolist()) for text in texts}) == 4
        assert (scores.diff() <= 0).all()
        for text, length, score in zip(texts, lengths.tolist(), scores, strict=True):
            assert END not in text[: length - 1]
            assert length == 10 or text[length - 1] == END
            assert (text[length:] == END).all()
            assert_close(score, rescored(model, prompt, text[:length]) / length**alpha)


def _same(found: Hypotheses, other: Hypotheses) -> None:
    assert torch.equal(found.tokens, other.tokens)
    assert torch.equal(found.lengths, other.lengths)
    assert_close(found.scores, other.scores, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("attention", CAUSAL)
@BUILDS
def test_cached_equals_uncached(build, attention: str) -> None:
    factory = attention_factory(attention)
    name = "attention" if build is decoder else "decoder_attention"
    with_state, without = (build(**{name: each}) for each in (factory, forgetful(factory)))
    options = {"beams": 3, "end": END, "length_penalty": 0.5}
    searches = [beam_search(prefixes(model, PROMPTS, 14), **options) for model in (with_state, without)]
    _same(*searches)


@pytest.mark.parametrize("early_stop", [False, True])
@BUILDS
def test_batched_equals_one_by_one(build, early_stop: bool) -> None:
    model = build()
    options = {"beams": 3, "end": END, "length_penalty": 0.5, "early_stop": early_stop}
    options["logits_processors"] = [RepetitionPenalty(1.2)]
    together = beam_search(prefixes(model, PROMPTS, 12), **options)
    for row, prompt in enumerate(PROMPTS):
        alone = beam_search(prefixes(model, [prompt], 12), **options)
        _same(Hypotheses(*(part[row : row + 1] for part in together)), alone)


def test_without_an_end_token_all_have_the_same_length() -> None:
    found = beam_search(continuing(decoder(), PROMPTS, 7), beams=3, end=None)
    assert (found.lengths == 7).all()
    assert (found.tokens == END).any()


def test_no_beams_are_refused() -> None:
    with pytest.raises(ConfigError, match="beams=0 is out of range"):
        beam_search(Toy(1, 2), beams=0, end=END)
