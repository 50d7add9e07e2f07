"""Steps against the whole, and the bytes of a state by hand."""

import pytest

from tests.audit.made import subject
from xformer.audit.evidence import Unmeasurable
from xformer.audit.stepping import decode_stepwise, state_bytes, stepping


def test_a_right_cache_is_the_whole_from_the_first_token_and_after_a_prompt() -> None:
    made = subject("Right")
    assert not stepping(made, 9, 2, 0).fails
    assert not stepping(made, 9, 2, 0, prompt=True).fails


def test_a_wrong_one_is_not() -> None:
    found = stepping(subject("ForgetsTheScale"), 9, 2, 0)
    assert found.fails
    assert found.says.endswith("of 9 differs from the whole")
    assert not found.says.startswith("step 0 ")  # the first token has no cache


def test_outputs_are_those_of_all_tokens() -> None:
    module = subject("Recurrent").at(0)
    assert decode_stepwise(module, module.draw(2, 5), 0)[0].shape == (2, 5, 16)


def test_bytes_of_a_state() -> None:
    assert state_bytes(subject("Right").at(0), 10) == 2 * 10 * 16 * 8  # keys and values in float64
    assert state_bytes(subject("Recurrent").at(0), 10) == 16 * 8
    assert state_bytes(subject("torch.nn.GRU", "hidden_size=8").at(0), 10) == 8 * 8
    llama = subject("transformers.models.llama.modeling_llama.LlamaAttention", causal=True)
    assert state_bytes(llama.at(0), 10) == 2 * 10 * 32 * 8


def test_what_has_no_state_is_not_measured() -> None:
    with pytest.raises(Unmeasurable):
        stepping(subject("Window"), 4, 1, 0)
