"""Sampling with a decoding state, without one, and beyond the model's length."""

import pytest
import torch
from torch.nn.functional import linear

from tests.contracts.variants import attention_factory, position_factory
from tests.test_configuration import load
from xformer.architecture.decoder import Decoder
from xformer.architecture.size import Size
from xformer.architecture.stack import Stack
from xformer.attention.capability import Capability
from xformer.attention.full import Full
from xformer.configuration import make
from xformer.decoding.sampling import sample
from xformer.layers.embedding import Embedding
from xformer.layers.initialise import initialise

VOCABULARY, MAX_LENGTH = 11, 12


class Forgetful(Full):
    """Full attention that has no decoding state."""

    provides = Full.provides & ~Capability.INCREMENTAL


def stack(attention, position: str) -> Stack:
    factory = make(load("architecture", "decoder"))
    size = Size(d_model=8, layers=2, heads=2, feed_forward=16)
    overrides = {"size": size, "attention": attention, "position": position_factory(position)}
    built = factory(lambda d_model: Embedding(VOCABULARY, d_model), MAX_LENGTH, **overrides)
    initialise(built, seed=0)
    assert isinstance(built, Decoder)
    return built.eval()


def logits_of(model: Stack):
    def logits(tokens: torch.Tensor, **decoding) -> torch.Tensor:
        return 3 * linear(model(tokens, **decoding), model.embedding.weight)

    return logits


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "alibi"])
def test_with_and_without_a_state_the_text_is_the_same(position: str) -> None:
    prompt = torch.tensor([1, 2, 3])
    texts = []
    for attention in (Full, Forgetful):
        model = stack(attention, position)
        texts.append(sample(model, logits_of(model), prompt, 30, temperature=1.0, seed=4))
    assert torch.equal(texts[0], texts[1])
    assert len(texts[0]) == 33
    assert torch.equal(texts[0][:3], prompt)


def test_the_seed_decides() -> None:
    model = stack(attention_factory("full"), "learned")
    one, same, other = (
        sample(model, logits_of(model), torch.tensor([1]), 20, temperature=1.0, seed=s) for s in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_low_temperature_takes_the_most_likely_token() -> None:
    model = stack(attention_factory("full"), "sinusoidal")
    tokens = sample(model, logits_of(model), torch.tensor([1, 5]), 8, temperature=1e-4, seed=0)
    greedy = logits_of(model)(tokens[None, :-1])[0].argmax(-1)
    assert torch.equal(tokens[2:], greedy[1:])
