"""The encoder-decoder: who may see what, and decoding from its states."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from tests.architecture.tiny import (
    D_MODEL,
    HEADS,
    HIDDEN,
    LAYERS,
    LENGTH,
    VOCABULARY,
    copy_last_norm,
    copy_tower,
    encoder_decoder,
    randomised,
    real,
    tokens,
)
from tests.contracts.variants import ATTENTIONS, VARIANTS, attention_class
from xformer.core.capability import Capability
from xformer.errors import DataError

DECODERS = [a for a in VARIANTS if Capability.CAUSAL | Capability.INCREMENTAL in attention_class(a).provides]
CROSSES = [a for a in ATTENTIONS if Capability.CROSS | Capability.PADDING in attention_class(a).provides]
CLOSE = {"atol": 1e-5, "rtol": 1e-4}


@pytest.mark.parametrize("attention", DECODERS)
@pytest.mark.parametrize("cut", [1, 4, 7])
def test_a_later_target_changes_nothing(attention: str, cut: int) -> None:
    model = encoder_decoder(decoder_attention=attention, decoder_position="sinusoidal")
    source, target = tokens(2, 9), tokens(2, 8, seed=1)
    changed = target.clone()
    changed[:, cut:] = (changed[:, cut:] + 1) % VOCABULARY
    before, after = model(source, None, target), model(source, None, changed)
    assert_close(before[:, :cut], after[:, :cut])
    assert (before[:, cut:] - after[:, cut:]).abs().max() > 1e-3


@pytest.mark.parametrize("cross", CROSSES)
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_content_of_padding_changes_nothing_and_the_source_matters(attention: str, cross: str) -> None:
    model = encoder_decoder(attention=attention, cross_attention=cross, position="learned", decoder_position="learned")
    source, target, mask = tokens(3, 9), tokens(3, 6, seed=1), real([9, 4, 1], 9)
    hidden = model(source, mask, target)
    other = torch.where(mask, source, (source + 3) % VOCABULARY)
    assert_close(model(other, mask, target), hidden)
    moved = source.clone()
    moved[:, 0] = (moved[:, 0] + 1) % VOCABULARY
    assert (model(moved, mask, target) - hidden).abs().amax(dim=(1, 2)).min() > 1e-4
    single = model(source[1:2, :4], None, target[1:2, :5])
    assert_close(hidden[1:2, :5], single, **CLOSE)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("groups", [None, 1, 2])
@pytest.mark.parametrize("attention", DECODERS)
def test_steps_with_left_padding_equal_decode(attention: str, shared: bool, groups: int | None) -> None:
    model = encoder_decoder(
        decoder_attention=attention, decoder_position="sinusoidal", share_layers=shared, key_value_heads=groups
    )
    source, target = tokens(2, 9), tokens(2, 8, seed=1)
    memory, absent = model.encode(source, real([9, 5], 9)), torch.tensor([[0], [3]])
    mask, positions = torch.arange(8) >= absent, (torch.arange(8) - absent).clamp(min=0)
    whole = model.decode(target, memory, padding_mask=mask, positions=positions)
    states, parts = model.init_states(memory, 8), []
    for start, stop in ((0, 4), (4, 5), (5, 6), (6, 8)):
        new = slice(start, stop)
        step = model.decode(target[:, new], padding_mask=mask[:, new], positions=positions[:, new], states=states)
        parts.append(step)
    assert_close(torch.cat(parts, dim=1)[mask], whole[mask], **CLOSE)
    assert [state.length for state in states] == [8, 8]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=3, max_size=3), st.booleans())
def test_states_follow_the_beams(beams: list[int], padded: bool) -> None:
    model = encoder_decoder(decoder_position="rotary")
    source, target = tokens(3, 9), tokens(3, 6, seed=1)
    memory = model.encode(source, real([9, 4, 1], 9) if padded else None)
    states, order = model.init_states(memory, 6), torch.tensor(beams)
    model.decode(target[:, :4], states=states)
    for state in states:
        state.reorder(order)
    after = model.decode(target[order][:, 4:], states=states)
    assert_close(after, model.decode(target, memory)[order][:, 4:], **CLOSE)
    assert_close(model.decode(target[order], memory.select(order))[:, 4:], after, **CLOSE)


def test_the_memory_is_projected_once_and_grouped_heads_make_it_smaller() -> None:
    def bytes_held(groups: int | None) -> int:
        model = encoder_decoder(key_value_heads=groups)
        return sum(state.bytes for state in model.init_states(model.encode(tokens(2, 9)), 8))

    assert bytes_held(1) < bytes_held(2) < bytes_held(None)
    model = encoder_decoder()
    states = model.init_states(model.encode(tokens(2, 9)), 8)
    calls: list[Tensor] = []
    for block in model.decoder.blocks:
        block.cross.branch.key.register_forward_hook(lambda *call: calls.append(call[-1]))  # type: ignore[union-attr]
    model.decode(tokens(2, 1), states=states)
    assert not calls


def test_without_a_target_the_source_is_read_on_both_sides() -> None:
    model = encoder_decoder(position="learned", decoder_position="learned")
    source, mask = tokens(2, 9), real([9, 4], 9)
    assert torch.equal(model(source, mask), model(source, mask, source))


def test_the_two_sides_share_one_table_and_have_their_own_lengths() -> None:
    model = encoder_decoder(position="learned", decoder_position="learned")
    tables = [m for m in model.modules() if getattr(m, "num_embeddings", None) == VOCABULARY]
    assert tables == [model.embedding]
    with pytest.raises(DataError, match="17 tokens, and Learned"):
        model(tokens(1, LENGTH + 1), None, tokens(1, 2))
    with pytest.raises(DataError, match="17 tokens, and Learned"):
        model(tokens(1, 2), None, tokens(1, LENGTH + 1))
    with pytest.raises(DataError, match="17 tokens, and Linformer"):
        encoder_decoder(cross_attention="linformer")(tokens(1, LENGTH + 1), None, tokens(1, 2))


def test_gradient_checkpointing_changes_no_bit() -> None:
    found = []
    for saving in (False, True):
        model = encoder_decoder(gradient_checkpointing=saving, dropout=0.2, stochastic_depth=0.3).train()
        torch.manual_seed(3)
        model(tokens(3, 9), real([9, 4, 1], 9), tokens(3, 6)).square().sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters()})
    plain, saved = found
    assert all(g is not None and torch.equal(g, saved[name]) for name, g in plain.items())


STYLES = [(norm, activation) for norm in ("pre", "post") for activation in ("relu", "gelu")]


@pytest.mark.parametrize(("norm", "activation"), STYLES)
@pytest.mark.parametrize("padded", [False, True])
def test_the_encoder_decoder_equals_torchs(norm: str, activation: str, padded: bool) -> None:
    ours = randomised(encoder_decoder(norm=norm, activation=activation, vectors=True))
    shape = (D_MODEL, HEADS, HIDDEN, 0.0, activation)
    reader = nn.TransformerEncoderLayer(*shape, batch_first=True, norm_first=norm == "pre")
    writer = nn.TransformerDecoderLayer(*shape, batch_first=True, norm_first=norm == "pre")
    theirs = nn.Transformer(
        D_MODEL,
        HEADS,
        custom_encoder=nn.TransformerEncoder(reader, LAYERS, copy_last_norm(norm, ours.tower.norm), False),
        custom_decoder=nn.TransformerDecoder(writer, LAYERS, copy_last_norm(norm, ours.decoder.norm)),
        batch_first=True,
    )
    copy_tower(ours.tower, theirs.encoder.layers)
    copy_tower(ours.decoder, theirs.decoder.layers)
    theirs.eval()
    source, target, mask = torch.randn(3, 9, D_MODEL), torch.randn(3, 6, D_MODEL), real([9, 4, 1], 9)
    absent = ~mask if padded else None
    expected = theirs(
        source,
        target,
        tgt_mask=nn.Transformer.generate_square_subsequent_mask(6),
        tgt_is_causal=True,
        src_key_padding_mask=absent,
        memory_key_padding_mask=absent,
    )
    assert_close(ours(source, mask if padded else None, target), expected, **CLOSE)
