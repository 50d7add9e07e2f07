"""How the next token is chosen: samples depend on their own seed, and have the probabilities of the softmax."""

import torch
from torch import Tensor
from torch.testing import assert_close

from tests.generation.tiny import (
    PROMPTS,
    continuing,
    decoder,
)
from xformer.generation.generate import generate_tokens
from xformer.generation.logits_processors import RepetitionPenalty, Temperature
from xformer.generation.sampling import Sampling


def test_a_sampled_row_depends_on_its_seed_and_not_on_the_batch() -> None:
    model = decoder()
    logits_processors = [RepetitionPenalty(1.3), Temperature(2.0)]

    def sampled(prompts: list[Tensor], seeds: list[int]) -> list[list[int]]:
        draw = Sampling(seeds, 20, "cpu")
        return generate_tokens(
            continuing(model, prompts, 20), draw, end=None, logits_processors=logits_processors
        ).tolist()

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
