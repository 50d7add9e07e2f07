"""What every token mixer declares, it must do in a layer, whether it owns its projections or has them around a variant.

Queries, keys and values alone are the business of test_attention.py; whole models that of test_combinations.py.
"""

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tests.contracts.variants import (
    ATTENTION_ROWS,
    HEAD_DIM,
    HEADS,
    MAX_LENGTH,
    MIXERS,
    VARIANTS,
    attention_class,
    attention_factory,
    build_mixer,
    forms,
    provides,
)
from xformer.attention.base import AttentionContext
from xformer.attention.mixer import TokenMixer
from xformer.benchmark.live_bytes import LiveBytes
from xformer.core.capability import Capability
from xformer.core.linear import Linear
from xformer.core.mask import Mask
from xformer.errors import IncompatibleError
from xformer.layers.multi_head import token_mixer
from xformer.layers.stable_names import stable_parameters
from xformer.position.base import Position, PositionContext

D_MODEL, LENGTH = HEADS * HEAD_DIM, 13
CAUSAL = [name for name in VARIANTS if provides(name, Capability.CAUSAL)]
INCREMENTAL = [name for name in CAUSAL if provides(name, Capability.INCREMENTAL)]
PADDING = [(name, causal) for name in VARIANTS if provides(name, Capability.PADDING) for causal in forms(name)]
FORMS = [(name, causal) for name in VARIANTS for causal in forms(name)]
LONG_ROWS: dict[str, dict[str, Any]] = {}
"""Hyper-parameters of mixers for sequences of thousands of tokens, where the yaml's own will not do."""


class Rotating(Position):
    """Needs what a mixer without scores does not have."""

    needs = Capability.ROTARY


def tokens(batch: int, length: int = LENGTH, seed: int = 0, width: int = D_MODEL) -> Tensor:
    return torch.randn(batch, length, width, generator=torch.Generator().manual_seed(seed))


def padded(lengths: list[int], side: str) -> tuple[Tensor, Tensor]:
    """Which tokens are valid, and all positions."""
    valid = torch.arange(LENGTH) < torch.tensor(lengths)[:, None]
    valid = valid if side == "right" else valid.flip(-1)
    return valid, (valid.long().cumsum(-1) - 1).clamp(min=0)


def masked(valid: Tensor, positions: Tensor, causal: bool, at: slice = slice(None)) -> Mask:
    some = positions[:, at]
    return Mask(some, some, causal, valid[:, at])


def left(name: str) -> bool:
    """Whether positions may begin anywhere in a row."""
    return provides(name, Capability.VARIABLE_LENGTH)


@pytest.mark.parametrize(("name", "causal"), FORMS)
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 2), (3, 3), (2, MAX_LENGTH)])
def test_any_size_keeps_its_shape(name: str, causal: bool, batch: int, length: int) -> None:
    mixed = build_mixer(name, causal=causal)(tokens(batch, length))
    assert mixed.shape == (batch, length, D_MODEL)
    assert mixed.isfinite().all()
    assert not torch.equal(mixed, build_mixer(name, causal=causal)(tokens(batch, length, seed=1)))


@pytest.mark.parametrize(("name", "causal"), FORMS)
@pytest.mark.parametrize(("batch", "length"), [(0, 5), (2, 0), (0, 0)])
@pytest.mark.parametrize("padding", [False, True])
def test_an_empty_batch_or_sequence_stays_empty(
    name: str, causal: bool, batch: int, length: int, padding: bool
) -> None:
    """As of torch's own modules, whose gradients are zeros then and not None."""
    if padding and not provides(name, Capability.PADDING):
        pytest.skip("takes no padding")
    mixer, x = build_mixer(name, causal=causal), tokens(batch, length).requires_grad_()
    valid = torch.ones(batch, length, dtype=torch.bool) if padding else None
    mixed = mixer(x, mask=Mask.consecutive(0, length, causal=causal, key_padding=valid))
    assert mixed.shape == x.shape
    mixed.sum().backward()
    for each in (x, *mixer.parameters()):
        assert each.grad is not None
        assert not each.grad.any()


@pytest.mark.parametrize("name", INCREMENTAL)
@pytest.mark.parametrize("before", [0, 4])
def test_no_token_changes_no_state(name: str, before: int) -> None:
    mixer, x = build_mixer(name, causal=True), tokens(2)
    state = mixer.init_state(LENGTH)
    found = [mixer(part, state=state) for part in x.split([before, 0, LENGTH - before], dim=1)]
    assert state.length == LENGTH
    assert_close(torch.cat(found, dim=1), mixer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_inputs_of_any_size_are_mixed_as_in_float64(name: str, scale: float) -> None:
    """In three chunks, forwards and backwards."""
    found = []
    for dtype in (torch.float32, torch.float64):
        mixer = build_mixer(name, causal=True, heads=4, head_dim=8, max_length=130).to(dtype)
        x = (scale * tokens(1, 130, width=32)).to(dtype).requires_grad_()
        mixed = mixer(x)
        mixed.div(scale).sum().backward()
        gradients = [each.grad for each in (x, *mixer.parameters()) if each.grad is not None]
        found.append([each.double() for each in (mixed, *gradients)])
    for ours, exact in zip(*found, strict=True):
        assert ours.isfinite().all()
        assert (ours - exact).norm() <= 1e-2 * exact.norm() + torch.finfo(torch.float32).tiny


@pytest.mark.parametrize(("name", "causal"), FORMS)
@pytest.mark.parametrize(("heads", "head_dim"), [(1, 8), (4, 2), (1, 1)])
def test_any_heads_that_share_the_width(name: str, causal: bool, heads: int, head_dim: int) -> None:
    mixer = build_mixer(name, causal=causal, heads=heads, head_dim=head_dim)
    x = tokens(2, width=heads * head_dim)
    assert mixer(x).shape == x.shape
    assert mixer(x).isfinite().all()


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("cut", [1, 6, 12])
def test_no_later_token_changes_a_number_or_has_a_gradient(name: str, cut: int) -> None:
    mixer, x = build_mixer(name, causal=True), tokens(2).requires_grad_()
    before = mixer(x)
    (gradient,) = torch.autograd.grad(before[:, :cut].square().sum(), x)
    assert gradient[:, cut:].abs().max() == 0
    assert gradient[:, :cut].abs().max() > 0
    for scale in (3.0, -50.0):
        later = x.detach().clone()
        later[:, cut:] *= scale
        after = mixer(later)
        assert_close(after[:, :cut], before[:, :cut])
        assert not torch.equal(after[:, cut:], before[:, cut:])


@pytest.mark.parametrize(("name", "causal"), FORMS)
def test_another_token_matters(name: str, causal: bool) -> None:
    mixer, x = build_mixer(name, causal=causal), tokens(1).requires_grad_()
    at = LENGTH // 2
    (gradient,) = torch.autograd.grad(mixer(x)[:, at].square().sum(), x)
    assert gradient[:, at].abs().max() > 0
    assert gradient[:, at - 1].abs().max() > 0
    assert causal or gradient[:, at + 1].abs().max() > 0


@pytest.mark.parametrize(("name", "causal"), PADDING)
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_padded_batch_equals_single_sequences(name: str, causal: bool, side: str) -> None:
    if side == "left" and not left(name):
        pytest.skip("depends on absolute places")
    mixer, x, lengths = build_mixer(name, causal=causal), tokens(3), [LENGTH, 7, 1]
    valid, positions = padded(lengths, side)
    together = mixer(x.masked_fill(~valid[..., None], 1e4), mask=masked(valid, positions, causal))
    assert together.isfinite().all()
    for row, keep in enumerate(valid):
        alone = mixer(x[row, keep][None])
        assert_close(together[row, keep][None], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "causal"), PADDING)
@pytest.mark.parametrize("side", ["right", "left"])
def test_what_padding_holds_reaches_no_number_and_no_gradient(name: str, causal: bool, side: str) -> None:
    """What stands before a mixer makes a padded token finite; here it holds large numbers of one sign or another."""
    if side == "left" and not left(name):
        pytest.skip("depends on absolute places")
    mixer, (valid, positions) = build_mixer(name, causal=causal), padded([LENGTH, 7, 0], side)
    results = []
    for content in (0.0, 1e4):
        mixer.zero_grad()
        x = torch.where(valid[..., None], tokens(3), content).requires_grad_()
        mixed = mixer(x, mask=masked(valid, positions, causal)).where(valid[..., None], 0.0)
        mixed.square().sum().backward()
        found = [mixed, x.grad, *(p.grad for p in mixer.parameters() if p.grad is not None)]
        results.append([tensor for tensor in found if tensor is not None])
    for found, expected in zip(*results, strict=True):
        assert_close(found, expected, atol=0, rtol=0)


@pytest.mark.parametrize(("name", "causal"), FORMS)
def test_a_row_depends_on_no_other_row(name: str, causal: bool) -> None:
    mixer, x = build_mixer(name, causal=causal), tokens(4).requires_grad_()
    mixed = mixer(x)
    assert_close(torch.cat([mixer(row[None]) for row in x]), mixed, atol=1e-6, rtol=1e-6)
    (gradient,) = torch.autograd.grad(mixed[1].square().sum(), x)
    assert gradient[[0, 2, 3]].abs().max() == 0


def chunks(mixer: TokenMixer, x: Tensor, valid: Tensor, positions: Tensor, sizes: list[int]) -> Iterator[Tensor]:
    state = mixer.init_state(x.shape[1])
    for start, end in itertools.pairwise([0, *itertools.accumulate(sizes)]):
        at = slice(start, end)
        yield mixer(x[:, at], mask=masked(valid, positions, True, at), state=state)
        assert state.length == end
    assert state.bytes > 0


@pytest.mark.parametrize("name", INCREMENTAL)
@pytest.mark.parametrize("sizes", [[1] * LENGTH, [5, *[1] * 8], [3, 7, 1, 2], [LENGTH]], ids=str)
@pytest.mark.parametrize("padding", ["no", "left", "right"])
def test_steps_and_chunks_from_a_state_equal_the_whole(name: str, sizes: list[int], padding: str) -> None:
    mixer, x = build_mixer(name, causal=True), tokens(3)
    valid, positions = padded([LENGTH] * 3 if padding == "no" else [LENGTH, 9, 2], padding)
    whole = mixer(x, mask=masked(valid, positions, True))
    found = torch.cat([*chunks(mixer, x, valid, positions, sizes)], dim=1)
    assert_close(found[valid], whole[valid], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", INCREMENTAL)
def test_a_state_needs_no_mask_where_tokens_follow_one_another(name: str) -> None:
    mixer, x = build_mixer(name, causal=True), tokens(2)
    state = mixer.init_state(LENGTH)
    steps = [mixer(token, state=state) for token in x.split(1, dim=1)]
    assert_close(torch.cat(steps, dim=1), mixer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", INCREMENTAL)
@pytest.mark.parametrize("order", [[1, 0, 2], [2, 2, 2]], ids=str)
def test_a_reordered_state_goes_on_as_the_other_row(name: str, order: list[int]) -> None:
    mixer, x = build_mixer(name, causal=True), tokens(3)
    state, rows = mixer.init_state(LENGTH), torch.tensor(order)
    mixer(x[:, :-1], state=state)
    state.reorder(rows)
    assert_close(mixer(x[rows][:, -1:], state=state), mixer(x)[rows][:, -1:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in MIXERS if provides(name, Capability.INCREMENTAL)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_mixers_state_stays_as_large_as_it_is_in_any_precision(name: str, dtype: torch.dtype) -> None:
    mixer = build_mixer(name, causal=True).to(dtype)
    state, sizes = mixer.init_state(MAX_LENGTH), []
    for token in tokens(2, MAX_LENGTH).to(dtype).split(1, dim=1):
        assert mixer(token, state=state).dtype == dtype
        sizes.append(state.bytes)
    assert sizes[-1] == sizes[len(sizes) // 2] > 0


@pytest.mark.parametrize("name", [name for name in VARIANTS if provides(name, Capability.VARIABLE_LENGTH)])
def test_longer_than_built_for(name: str) -> None:
    for causal in forms(name):
        assert build_mixer(name, causal=causal, max_length=8)(tokens(1, MAX_LENGTH)).isfinite().all()


@pytest.mark.parametrize(("name", "causal"), FORMS)
def test_gradients_reach_every_parameter_and_are_those_of_finite_differences(name: str, causal: bool) -> None:
    mixer = build_mixer(name, causal=causal).double()
    x = tokens(2, 7).double().requires_grad_()
    mixer(x).square().sum().backward()
    for parameter in mixer.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.numel() < 2 or parameter.grad.abs().max() > 0
    if name in MIXERS:  # of the others' variants, test_attention.py says the same
        assert torch.autograd.gradcheck(mixer, [tokens(1, 5).double().requires_grad_()])


@pytest.mark.parametrize(("name", "causal"), FORMS)
def test_16_bits_stay_close(name: str, causal: bool) -> None:
    mixer, x = build_mixer(name, causal=causal), tokens(2)
    exact = mixer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = mixer(x).float()
    assert (rounded - exact).norm() / exact.norm() < 0.05
    narrow = mixer.bfloat16()(x.bfloat16())
    assert narrow.dtype == torch.bfloat16
    assert (narrow.float() - exact).norm() / exact.norm() < 0.05


@pytest.mark.parametrize(("name", "causal"), FORMS)
def test_it_is_deterministic_and_its_weights_are_all_it_needs(name: str, causal: bool) -> None:
    mixer, x = build_mixer(name, causal=causal), tokens(2)
    expected = mixer(x)
    assert torch.equal(mixer(x), expected)
    other = token_mixer(attention_factory(name)(mixer.context)).eval()
    other.load_state_dict(copy.deepcopy(mixer.state_dict()))
    assert torch.equal(other(x), expected)


@pytest.mark.parametrize("name", MIXERS)
def test_a_mixer_has_the_dropout_and_the_gain_of_its_layer(name: str) -> None:
    causal, x = forms(name)[0], tokens(64)

    def spread(gain: float) -> Tensor:
        return build_mixer(name, causal=causal, gain=gain)(x).std()

    assert_close(spread(0.25) / spread(1.0), torch.tensor(0.25), atol=1e-3, rtol=1e-3)
    ends = [part for part in build_mixer(name, causal=causal, gain=0.125).modules() if isinstance(part, Linear)]
    assert [part.gain for part in ends].count(0.125) == 1
    dropping = build_mixer(name, causal=causal, dropout=0.5).train()
    torch.manual_seed(0)
    assert not torch.equal(dropping(x), dropping(x))
    assert torch.equal(dropping.eval()(x), build_mixer(name, causal=causal)(x))


@pytest.mark.parametrize("name", MIXERS)
def test_initial_values_are_the_modules_own_and_depend_on_the_seed_and_the_name(name: str) -> None:
    mixer = build_mixer(name, causal=forms(name)[0])
    resets = [path for path, part in mixer.named_modules() if hasattr(part, "reset_parameters")]
    for path, parameter in stable_parameters(mixer).items():
        owner = path.rpartition(".")[0]
        assert any(owner == reset or owner.startswith(f"{reset}.") or not reset for reset in resets), path
        assert parameter.isfinite().all()
    spoilt = copy.deepcopy(mixer)
    with torch.no_grad():
        for parameter in spoilt.parameters():
            parameter.fill_(torch.nan)
    for _, part in spoilt.named_modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    assert all(parameter.isfinite().all() for parameter in spoilt.parameters())


@pytest.mark.parametrize("name", MIXERS)
def test_what_is_not_decayed_are_parameters_of_the_mixer(name: str) -> None:
    mixer = build_mixer(name, causal=forms(name)[0])
    own = {id(parameter) for parameter in mixer.parameters()}
    assert all(isinstance(each, nn.Parameter) and id(each) in own for each in mixer.undecayed())


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_not_declared_is_refused(name: str) -> None:
    def refused(capability: Capability) -> Any:
        return pytest.raises(IncompatibleError, match=f"cannot do {capability.name}: .{{20}}")

    roles = (Capability.CAUSAL, True, False), (Capability.BIDIRECTIONAL, False, False), (Capability.CROSS, False, True)
    for capability, causal, cross in roles:
        if not provides(name, capability):
            with refused(capability):
                attention_factory(name)(AttentionContext(HEADS, HEAD_DIM, 8, 8, causal, cross))
    causal = forms(name)[0]
    mixer, x = build_mixer(name, causal=causal), tokens(2)
    other = Capability.BIDIRECTIONAL if causal else Capability.CAUSAL
    if not provides(name, other):
        with refused(other):
            mixer(x, mask=Mask.consecutive(0, LENGTH, causal=not causal))
    if not provides(name, Capability.PADDING):
        with refused(Capability.PADDING):
            mixer(x, mask=Mask.consecutive(0, LENGTH, causal=causal, key_padding=torch.ones(2, LENGTH) > 0))
    if not provides(name, Capability.INCREMENTAL):
        with refused(Capability.INCREMENTAL):
            mixer.init_state(LENGTH)
    if name in MIXERS and not provides(name, Capability.ROTARY):
        with refused(Capability.ROTARY):
            mixer(x, position=Rotating(PositionContext(D_MODEL, HEADS, HEAD_DIM, 1, LENGTH, causal)))
    assert mixer.variant == attention_class(name).__name__


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("causal", [False, True])
def test_peak_memory_grows_linearly(name: str, causal: bool) -> None:
    if causal not in forms(name):
        pytest.skip("not of this form")
    peaks = []
    for length in (512, 1024, 2048, 4096):
        context = AttentionContext(4, 8, length, length, causal)
        row = LONG_ROWS.get(name, ATTENTION_ROWS.get(name, {}))
        with LiveBytes() as live:
            mixer = attention_factory(name)(context, **row)
            mixer(tokens(1, length, width=32)).sum().backward()
        peaks.append(live.peak)
    increments = [after - before for before, after in itertools.pairwise(peaks)]
    assert all(after / before < 1.15 * 2 for before, after in itertools.pairwise(increments)), peaks
