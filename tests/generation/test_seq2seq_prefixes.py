"""Writing targets: with a state and without, in a batch and alone, for every causal variant."""

import pytest
import torch

from tests.contracts.variants import attention_class, attention_factory
from tests.generation.tiny import (
    CAUSAL,
    LENGTH,
    PROMPTS,
    check_every_step,
    encoder_decoder,
    forgetful,
    transducing,
)
from xformer.core.capability import Capability
from xformer.errors import DataError
from xformer.generation.generate import generate_tokens
from xformer.generation.sampling import most_likely


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
    check_every_step(rows, model, torch.randint(3, 11, (3, 8)))


def test_a_source_longer_than_the_model_is_refused() -> None:
    prompt = torch.randint(3, 11, (LENGTH + 1,))
    with pytest.raises(DataError, match=f"source has {LENGTH + 1} tokens, but the model reads {LENGTH} at most"):
        transducing(encoder_decoder(position="learned"), [prompt], 4)
    assert generate_tokens(transducing(encoder_decoder(), [prompt], 4), most_likely, end=None).shape == (1, 4)


def test_a_target_ends_where_its_decoder_has_no_more_places() -> None:
    rows = transducing(encoder_decoder(decoder_position="learned"), PROMPTS, 100)
    assert rows.max_new == LENGTH
    assert generate_tokens(rows, most_likely, end=None).shape == (3, LENGTH)
    assert transducing(encoder_decoder(decoder_position="rotary"), PROMPTS, 100).max_new == 100
