"""Positions, blocks and the last norm: what they share, and what a sequence that is too long is told."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.architecture.tiny import LENGTH, stack, tokens
from tests.contracts.toy_mixer import ToyMixer
from tests.contracts.variants import attention_factory, position_factory
from xformer.architecture.decoder import Decoder
from xformer.architecture.encoder import Encoder
from xformer.architecture.stack import Stack
from xformer.attention.hybrid import LayerEntry, hybrid
from xformer.attention.linformer import Linformer
from xformer.errors import DataError, IncompatibleError


def test_an_attention_can_share_with_the_first_layers() -> None:
    linformer = partial(Linformer, rank=4, sharing="layerwise", projection="learned")
    first, second = (mixer.mix for mixer in stack(Encoder, attention=linformer).tower.mixers[0])
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


def test_a_sequence_that_is_too_long_names_the_part() -> None:
    with pytest.raises(DataError, match="A sequence has 17 tokens, and Learned was built for at most 16"):
        stack(Encoder, position="learned")(tokens(1, LENGTH + 1))
    assert stack(Encoder)(tokens(1, LENGTH + 1)).isfinite().all()


class Asking(ToyMixer):
    """Asks for a share of its output in every training pass."""

    def forward(self, x: Tensor, **about: Any) -> Tensor:
        mixed = super().forward(x, **about)
        if self.training:
            self.auxiliary_loss = 0.5 * mixed.square().mean()
        return mixed


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_auxiliary_losses_of_all_layers_add_up_in_training_alone(shared: bool, checkpointing: bool) -> None:
    model = stack(
        Decoder, attention=partial(Asking, decay=0.9), share_layers=shared, gradient_checkpointing=checkpointing
    )
    asked: list[Tensor] = []
    for mixer in model.tower.mixers[0]:
        mixer.register_forward_hook(lambda module, inputs, mixed: asked.append(0.5 * mixed.square().mean()))
    model(tokens(2, 7))
    assert model.pop_auxiliary_loss() is None
    asked.clear()
    model.train()(tokens(2, 7))
    assert len(asked) == 2
    found = model.pop_auxiliary_loss()
    assert found is not None
    assert_close(found, sum(asked))
    assert model.pop_auxiliary_loss() is None
    found.backward()
    gates = [mixer.gates.weight for mixer in model.tower.mixers[0]]  # type: ignore[union-attr]
    assert all(gate.grad.abs().max() > 0 for gate in gates)  # type: ignore[union-attr]
    assert all(mixer.auxiliary_loss is None for mixer in model.tower.mixers[0]) or checkpointing


def entry(name: str, position: str | None = None) -> LayerEntry:
    scheme = None if position is None else position_factory(position)
    return LayerEntry(
        name=f"{name} {position}",
        attention=attention_factory(name),
        position=scheme,
        option=name,
        position_option=position,
    )


def mixed_stack(*entries: LayerEntry, **options: Any) -> Stack:
    return stack(Decoder, attention=partial(hybrid, layers=list(entries)), layers=4, **options)


def test_a_hybrid_decodes_from_the_states_of_its_layers() -> None:
    model = mixed_stack(entry("local"), entry("toy_mixer"), entry("full", "alibi"), position="none")
    inputs, states = tokens(2, 13), model.init_states(13)
    assert [type(state).__name__ for state in states] == ["PositionState", "ToyState", "KeyValueState", "PositionState"]
    parts = [model(part, states=states) for part in inputs.split([5, 1, 1, 6], dim=1)]
    assert_close(torch.cat(parts, dim=1), model(inputs), atol=1e-5, rtol=1e-4)
    assert model.incremental
    assert model.extrapolates


def test_a_stack_is_what_all_of_its_layers_are() -> None:
    options = {"position": "none"}
    encoder = stack(Encoder, attention=partial(hybrid, layers=[entry("full"), entry("linformer")]), layers=4, **options)
    assert not encoder.incremental
    assert not encoder.extrapolates
    assert encoder.tower.limited_by == ["Linformer"]
    with pytest.raises(DataError, match="A sequence has 17 tokens, and Linformer was built for at most 16"):
        encoder(tokens(1, LENGTH + 1))


def test_layers_of_a_kind_share_a_scheme_of_their_own_and_others_have_the_stacks() -> None:
    """Relative positions keep parameters for each layer: there are as many as layers that they serve."""
    entries = entry("full", "relative"), entry("full", "none"), entry("full", "relative"), entry("full")
    model = mixed_stack(*entries, position="relative")
    tower: Any = model.tower
    assert len(tower.position.keys) == 1
    assert {name: len(scheme.keys) for name, scheme in tower.layer_positions.items() if name == "0"} == {"0": 2}
    model.train()(tokens(2, 7)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    inputs, before = tokens(2, 7), model.eval()(tokens(2, 7))
    for keys in (tower.position.keys[0], tower.layer_positions["0"].keys[1]):
        with torch.no_grad():
            keys.add_(torch.randn_like(keys))
        assert (model(inputs) - before).abs().max() > 1e-4
        before = model(inputs)


def test_a_layer_that_lacks_what_its_scheme_needs_is_refused_in_any_place() -> None:
    mixed_stack(entry("full"), entry("toy_mixer", "none"), position="rotary")
    with pytest.raises(IncompatibleError, match="ToyMixer cannot do ROTARY"):
        mixed_stack(entry("full"), entry("full"), entry("toy_mixer"), position="rotary")


def test_shared_weights_of_a_hybrid_are_those_of_the_plain_stacks() -> None:
    """So that with one seed a comparison begins from the same values."""
    mixed, plain = mixed_stack(entry("local"), entry("full")).state_dict(), stack(Decoder, layers=4).state_dict()
    assert set(mixed) == set(plain)
    assert all(torch.equal(mixed[name], plain[name]) for name in plain)
