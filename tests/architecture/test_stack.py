"""What every stack of blocks must show, whatever its attention and positions."""

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from tests.architecture.tiny import D_MODEL, LENGTH, encoder_decoder, randomised, stack, tokens
from tests.contracts.variants import ATTENTIONS, attention_class, position_class
from xformer.architecture.decoder import Decoder
from xformer.architecture.encoder import Encoder
from xformer.architecture.stack import Stack
from xformer.attention.linformer import Linformer
from xformer.config.validate import groups
from xformer.core.capability import Capability
from xformer.errors import DataError

DECODING = [
    (attention, position)
    for attention in ATTENTIONS
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


def test_an_attention_can_share_with_the_first_layers() -> None:
    linformer = partial(Linformer, rank=4, sharing="layerwise", projection="learned")
    first, second = (block.attentions[0] for block in stack(Encoder, attention=linformer).tower.blocks)  # type: ignore[union-attr, operator]
    assert first.project_key is second.project_key


def test_shared_layers_keep_their_own_bias() -> None:
    model = stack(Encoder, position="relative", share_layers=True)
    inputs = tokens(2, 7)
    before = model(inputs)
    keys: Any = model.tower.position.keys
    assert len(keys) == 2
    with torch.no_grad():
        keys[1].copy_(torch.randn_like(keys[1]) * 3)
    assert (model(inputs) - before).abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["encoder", "decoder", "decoder with an encoder"])
def test_the_variance_at_the_start_does_not_grow_with_depth(kind: str) -> None:
    def variance(layers: int) -> Tensor:
        seen: list[Tensor] = []
        model: Any = (
            encoder_decoder(layers=layers)
            if "with" in kind
            else stack({"encoder": Encoder}.get(kind, Decoder), layers=layers)
        )
        tower = model.decoder if "with" in kind else model.tower
        tower.norm.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        model(tokens(8, 16))
        return seen[0].var()

    shallow = variance(1)
    assert 0.7 < shallow < 2
    for layers in (4, 32):
        assert 0.7 < variance(layers) / shallow < 1.4


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


def test_rms_norm_is_the_papers_formula() -> None:
    model = randomised(stack(Encoder, norm_layer="rms"))
    x = torch.randn(2, 3, D_MODEL)
    weight = model.tower.norm.weight
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    assert_close(model.tower.norm(x), expected)
    assert not any(name.endswith("norm.bias") for name, _ in model.named_parameters())


def test_a_sequence_that_is_too_long_names_the_part() -> None:
    with pytest.raises(DataError, match="17 tokens came, and Learned was built for 16"):
        stack(Encoder, position="learned")(tokens(1, LENGTH + 1))
    assert stack(Encoder)(tokens(1, LENGTH + 1)).isfinite().all()
