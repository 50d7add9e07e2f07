"""What every stack of blocks must show, whatever its attention and positions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from tests.architecture.tiny import LENGTH, encoder_decoder, stack, tokens
from tests.contracts.variants import ATTENTIONS, VARIANTS, attention_class, position_class
from xformer.architecture.decoder import Decoder
from xformer.architecture.encoder import Encoder
from xformer.architecture.stack import Stack
from xformer.config.groups import groups
from xformer.core.capability import Capability

DECODING = [
    (attention, position)
    for attention in VARIANTS
    for position in groups()["position"]
    if Capability.CAUSAL | Capability.INCREMENTAL | position_class(position).needs
    in attention_class(attention).provides
]


def gradients(model: Stack, inputs: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    torch.manual_seed(3)
    model(inputs).square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("attention", "position"), DECODING)
def test_steps_with_left_padding_equal_forward(attention: str, position: str) -> None:
    model = stack(Decoder, attention=attention, position=position)
    inputs, absent = tokens(2, 9), torch.tensor([[0], [3]])
    mask = torch.arange(9) >= absent
    positions = (torch.arange(9) - absent).clamp(min=0)
    whole = model(inputs, mask, positions)
    states, parts = model.init_states(9), []
    for start, stop in ((0, 5), (5, 6), (6, 7), (7, 9)):
        new = slice(start, stop)
        parts.append(model(inputs[:, new], mask[:, new], positions[:, new], states=states))
    assert_close(torch.cat(parts, dim=1)[mask], whole[mask], atol=1e-5, rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.booleans())
def test_any_cut_into_steps_equals_forward(sizes: list[int], shared: bool) -> None:
    model = stack(Decoder, position="rotary", share_layers=shared)
    inputs = tokens(2, min(sum(sizes), LENGTH))
    states = model.init_states(LENGTH)
    parts = [model(part, states=states) for part in inputs.split(sizes[0], dim=1)]
    assert [state.length for state in states] == [inputs.shape[1]] * 2
    assert_close(torch.cat(parts, dim=1), model(inputs), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [Encoder, Decoder])
def test_gradient_checkpointing_changes_no_bit(kind: type[Stack]) -> None:
    options = {"dropout": 0.2, "stochastic_depth": 0.3, "position": "t5"}
    plain, saving = (stack(kind, gradient_checkpointing=on, **options).train() for on in (False, True))
    ours, theirs = gradients(plain, tokens(4, 7)), gradients(saving, tokens(4, 7))
    assert ours
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_sharing_has_one_blocks_parameters_and_runs_it_as_often() -> None:
    def count(layers: int, shared: bool) -> int:
        return sum(p.numel() for p in stack(Encoder, layers=layers, share_layers=shared).parameters())

    assert count(5, True) == count(1, False)
    shared, apart = stack(Encoder, layers=3, share_layers=True), stack(Encoder, layers=3)
    state = shared.state_dict()
    for layer in range(1, 3):
        state |= {name.replace("blocks.0", f"blocks.{layer}"): w for name, w in state.items() if "blocks.0" in name}
    apart.load_state_dict(state)
    assert_close(shared(tokens(2, 7)), apart(tokens(2, 7)))


def test_weights_depend_on_the_seed_and_their_name_alone() -> None:
    encoder, decoder, pair = stack(Encoder), stack(Decoder), encoder_decoder()
    mine = encoder.state_dict()
    assert mine
    for other in (decoder.state_dict(), pair.state_dict()):
        assert set(mine) <= set(other)
        assert all(torch.equal(mine[name], other[name]) for name in mine)
    deeper = stack(Encoder, layers=5).state_dict()
    assert torch.equal(
        mine["tower.blocks.1.attention.branch.query.weight"], deeper["tower.blocks.1.attention.branch.query.weight"]
    )


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_no_attention_draws_from_the_generator_that_dropout_uses(attention: str) -> None:
    def state_after(name: str) -> Tensor:
        model = stack(Encoder, attention=name, dropout=0.1, stochastic_depth=0.2).train()
        torch.manual_seed(0)
        model(tokens(2, 7)).sum().backward()
        return torch.get_rng_state()

    assert torch.equal(state_after(attention), state_after("full"))
