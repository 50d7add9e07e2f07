"""Going on from prompts: with a state and without, in a batch and alone, for every causal variant."""

import pytest
import torch

from tests.contracts.variants import attention_class, attention_factory, position_class
from tests.generation.tiny import (
    CAUSAL,
    LENGTH,
    PROMPTS,
    check_every_step,
    continuing,
    decoder,
    forgetful,
)
from xformer.errors import DataError
from xformer.generation.generate import generate_tokens
from xformer.generation.sampling import most_likely

SCHEMES = ["learned", "rotary", "alibi", "relative", "transformer_xl", "t5"]
PAIRS = [(a, p) for a in CAUSAL for p in SCHEMES if position_class(p).needs in attention_class(a).provides]


def test_every_causal_attention_is_here_with_relative_positions() -> None:
    assert len(CAUSAL) > 5
    assert all(sum(a == name for a, _ in PAIRS) > 2 for name in CAUSAL)


@pytest.mark.parametrize(("attention", "position"), PAIRS)
def test_every_step_has_the_logits_of_a_plain_forward_of_that_row_alone(attention: str, position: str) -> None:
    """Cached equals uncached, batched equals one by one, and a row that outgrows its model shows its last tokens."""
    factory = attention_factory(attention)
    written = torch.randint(3, 11, (3, LENGTH))
    for state in (True, False) if position in {"learned", "t5"} else (True,):
        model = decoder(factory if state else forgetful(factory), position)
        rows = continuing(model, PROMPTS, LENGTH)
        assert rows.incremental is state
        check_every_step(rows, model, written)


def test_a_prompt_longer_than_the_model_is_refused() -> None:
    prompt = torch.randint(3, 11, (LENGTH + 1,))
    with pytest.raises(DataError, match=f"prompt has {LENGTH + 1} tokens, but the model reads {LENGTH} at most"):
        continuing(decoder(position="learned"), [prompt, prompt[:2]], 4)
    assert generate_tokens(continuing(decoder(position="rotary"), [prompt], 4), most_likely, end=None).shape == (1, 4)
