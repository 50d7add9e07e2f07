"""Every attention with every position scheme in every single stack: what the declarations allow works exactly.

What they forbid is refused by the model itself here; that the configuration is refused too, before anything is built,
is in tests/config/test_compatibility.py.
"""

import copy
import itertools
from collections.abc import Iterable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.contracts.variants import (
    MAX_LENGTH,
    POSITIONS,
    VARIANTS,
    attention_class,
    attention_factory,
    position_class,
    position_factory,
)
from xformer.architecture.decoder import Decoder
from xformer.architecture.encoder import Encoder
from xformer.architecture.size import Size
from xformer.architecture.stack import Stack
from xformer.core.capability import Capability
from xformer.core.embedding import Embedding
from xformer.errors import DataError, IncompatibleError
from xformer.layers.initialise import initialise

Combination = tuple[str, str, type[Stack]]
SLOW = pytest.mark.slow

SIZE = Size(d_model=8, layers=2, heads=2, feed_forward=12)
VOCABULARY = 11
# One below, at and above the smallest block of the block-sparse kernel; of blocks of 2 and strides of 3, 1 ... 3 are.
LENGTHS = [1, 2, 3, 13, 15, 16, 17, MAX_LENGTH]
# Likewise for its largest block and for Performer's chunk.
LONG_LENGTHS = [63, 64, 65, 127, 128, 129, 131]


def needs(combination: Combination) -> Capability:
    _, position, architecture = combination
    return position_class(position).needs | architecture.slots["attention"].needs


def allowed(combination: Combination) -> bool:
    return needs(combination) in attention_class(combination[0]).provides


def named(combinations: Iterable[Combination]) -> list[Any]:
    """Parameters of a test."""
    return [pytest.param(one, id=f"{one[0]}-{one[1]}-{one[2].__name__.lower()}") for one in combinations]


def sampled(combinations: Iterable[Combination]) -> list[Any]:
    """Every third one, so that each attention meets several positions and the other way round; the others are slow."""

    def chosen(one: Combination) -> bool:
        return (VARIANTS.index(one[0]) + POSITIONS.index(one[1]) + one[2].causal) % 3 == 0

    rows = named(combinations)
    return [row if chosen(row.values[0]) else pytest.param(*row.values, id=row.id, marks=SLOW) for row in rows]


EVERYTHING: list[Combination] = list(itertools.product(VARIANTS, POSITIONS, (Encoder, Decoder)))
ALLOWED = [one for one in EVERYTHING if allowed(one)]
CAUSAL = [one for one in ALLOWED if one[2] is Decoder]
INCREMENTAL = [one for one in CAUSAL if Capability.INCREMENTAL in attention_class(one[0]).provides]


def create(combination: Combination, max_length: int = MAX_LENGTH, seed: int = 0, **options: Any) -> Stack:
    attention, position, architecture = combination
    defaults: dict[str, Any] = {
        "norm": "pre",
        "norm_layer": "layer",
        "activation": "gelu",
        "dropout": 0.0,
        "stochastic_depth": 0.0,
        "share_layers": False,
        "key_value_heads": None,
        "gradient_checkpointing": False,
    }
    stack = architecture(
        lambda d_model: Embedding(VOCABULARY, d_model),
        max_length,
        size=SIZE,
        attention=attention_factory(attention),
        position=position_factory(position),
        **{**defaults, **options},
    )
    initialise(stack, seed)
    return stack.eval()


@cache
def built(combination: Combination, max_length: int = MAX_LENGTH) -> Stack:
    """Shared by the tests, which must leave it as it is."""
    return create(combination, max_length).requires_grad_(False)


def tokens(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def changed(inputs: Tensor, at: slice) -> Tensor:
    other = inputs.clone()
    other[:, at] = (other[:, at] + 1) % VOCABULARY
    return other


def padding(lengths: list[int], longest: int, side: str) -> tuple[Tensor, Tensor | None]:
    """Which tokens are real and, where it has to be said, at which positions they are."""
    real = torch.arange(longest) < torch.tensor(lengths)[:, None]
    if side == "right":
        return real, None
    real = real.flip(-1)
    return real, (real.long().cumsum(-1) - 1).clamp(min=0)


def assert_padding_is_inert(stack: Stack, lengths: list[int], side: str) -> None:
    inputs, longest = tokens(len(lengths), max(lengths)), max(lengths)
    real, positions = padding(lengths, longest, side)
    together = stack(inputs, real, positions)
    assert together.isfinite().all()
    for row, kept in enumerate(real):
        alone = stack(inputs[row, kept][None])
        assert_close(together[row, kept][None], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("combination", sampled(ALLOWED))
def test_every_length_up_to_the_longest_and_beyond_where_declared(combination: Combination) -> None:
    stack, longer = built(combination), MAX_LENGTH + 7
    variable = Capability.VARIABLE_LENGTH in attention_class(combination[0]).provides
    if variable and position_class(combination[1]).extrapolates:
        lengths = [*LENGTHS, longer]
    else:
        lengths = LENGTHS
        with pytest.raises(DataError, match=f"built for at most {MAX_LENGTH}"):
            stack(tokens(1, longer))
    whole = stack(tokens(2, lengths[-1]))
    for length in lengths:
        hidden = stack(tokens(2, lengths[-1])[:, :length])
        assert hidden.shape == (2, length, SIZE.d_model)
        assert hidden.isfinite().all()
        if stack.causal:
            assert_close(hidden, whole[:, :length], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", ["no", "right", "left"])
@pytest.mark.parametrize("combination", sampled(ALLOWED))
def test_a_padded_batch_equals_single_sequences(combination: Combination, side: str) -> None:
    lengths = [13, 13] if side == "no" else [17, 13, 2, 1]
    assert_padding_is_inert(built(combination), lengths, side)


@SLOW
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("combination", named(ALLOWED))
def test_a_padded_batch_equals_single_sequences_around_the_larger_blocks(combination: Combination, side: str) -> None:
    assert_padding_is_inert(built(combination, LONG_LENGTHS[-1]), LONG_LENGTHS, side)


@pytest.mark.parametrize("combination", sampled(ALLOWED))
def test_a_row_of_padding_harms_no_other(combination: Combination) -> None:
    stack, inputs = create(combination), tokens(2, 5)
    hidden = stack(inputs, torch.tensor([[True] * 5, [False] * 5]))
    assert_close(hidden[:1], stack(inputs[:1]), atol=1e-5, rtol=1e-5)
    hidden[0].square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in stack.parameters())


@pytest.mark.parametrize("combination", named(CAUSAL))
def test_the_future_changes_nothing_and_the_past_matters(combination: Combination) -> None:
    stack, inputs = built(combination), tokens(2, 17)
    before = stack(inputs)
    for cut in (1, 8, 16):
        later, earlier = stack(changed(inputs, slice(cut, None))), stack(changed(inputs, slice(cut - 1, cut)))
        assert_close(later[:, :cut], before[:, :cut], atol=1e-6, rtol=1e-6)
        assert not torch.isclose(later[:, cut:], before[:, cut:], atol=1e-4).all(dim=-1).any()
        assert (earlier - before)[:, cut].abs().amax(dim=-1).min() > 1e-4


@pytest.mark.parametrize("combination", sampled(one for one in ALLOWED if one not in CAUSAL))
def test_both_neighbours_matter_where_nothing_is_causal(combination: Combination) -> None:
    stack, inputs, at = built(combination), tokens(2, 17), 8
    before = stack(inputs)
    for neighbour in (at - 1, at + 1):
        after = stack(changed(inputs, slice(neighbour, neighbour + 1)))
        assert (after - before)[:, at].abs().amax(dim=-1).min() > 1e-4


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("combination", sampled(INCREMENTAL))
def test_decoding_token_by_token_equals_forward(combination: Combination, side: str) -> None:
    stack, length = built(combination), 17
    assert stack.incremental
    inputs, first = tokens(3, length), 1
    real, positions = torch.ones(3, length, dtype=torch.bool), None
    if side == "left":
        real, positions = padding([length, length - 3, length - 4], length, side)
        first = 5  # a prompt that has a token in every row
    whole, states, parts = stack(inputs, real, positions), stack.init_states(length), []
    for start, end in itertools.pairwise([0, *range(first, length + 1)]):
        new = slice(start, end)
        about = () if positions is None else (real[:, new], positions[:, new])
        parts.append(stack(inputs[:, new], *about, states=states))
    assert_close(torch.cat(parts, dim=1)[real], whole[real], atol=1e-5, rtol=1e-5)


@SLOW
@pytest.mark.parametrize("combination", named(INCREMENTAL))
def test_decoding_goes_on_from_a_prompt_of_several_blocks(combination: Combination) -> None:
    length, prompt = LONG_LENGTHS[-1], 126
    stack, inputs = built(combination, length), tokens(2, length)
    whole, states, parts = stack(inputs), stack.init_states(length), []
    for start, end in itertools.pairwise([0, *range(prompt, length + 1)]):
        parts.append(stack(inputs[:, start:end], states=states))
    assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("combination", sampled(ALLOWED))
def test_gradient_checkpointing_changes_no_bit(combination: Combination) -> None:
    inputs, gradients = tokens(2, 13), []
    for checkpointing in (False, True):
        stack = create(combination, dropout=0.2, gradient_checkpointing=checkpointing).train()
        torch.manual_seed(1)
        hidden = stack(inputs, padding([13, 6], 13, "right")[0])
        hidden[:, :6].square().sum().backward()
        gradients.append({name: p.grad for name, p in stack.named_parameters()})
    plain, checkpointed = gradients
    assert all(gradient is not None and gradient.isfinite().all() for gradient in plain.values())
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)


@pytest.mark.parametrize("combination", sampled(ALLOWED))
def test_gradients_are_those_of_finite_differences(combination: Combination) -> None:
    stack = create(combination).double()
    inputs, real = tokens(2, 13), padding([13, 6], 13, "right")[0]
    towards = torch.randn(13, SIZE.d_model, dtype=torch.float64)

    def loss() -> Tensor:
        value: Tensor = (stack(inputs, real) * towards)[real].sum()
        return value

    parameters = list(stack.parameters())
    direction = [torch.randn_like(p) for p in parameters]
    slope = sum((g * d).sum() for g, d in zip(torch.autograd.grad(loss(), parameters), direction, strict=True))
    step, values = 1e-6, []  # a norm of a small output is strongly curved: the error of 1e-5 would be 4e-5
    for by in (step, -2 * step):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(by * d)
            values.append(loss())
    assert_close((values[0] - values[1]) / (2 * step), slope, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("combination", sampled(ALLOWED))
def test_a_state_dict_carries_everything(combination: Combination) -> None:
    stack, other, inputs = built(combination), create(combination, seed=1).requires_grad_(False), tokens(2, 13)
    expected = stack(inputs)
    assert not torch.isclose(other(inputs), expected, atol=1e-3).all()
    other.load_state_dict(copy.deepcopy(stack.state_dict()))
    assert torch.equal(other(inputs), expected)


@pytest.mark.parametrize("combination", sampled(ALLOWED))
def test_bfloat16_autocast_stays_close(combination: Combination) -> None:
    stack, inputs = built(combination), tokens(2, 17)
    real, positions = padding([17, 9], 17, "left")
    exact = stack(inputs, real, positions)[real]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = stack(inputs, real, positions)[real].float()
    assert rounded.isfinite().all()
    assert 0 < (rounded - exact).abs().mean() < 0.02
    assert_close(rounded, exact, atol=0.1, rtol=0.05)


@pytest.mark.parametrize("combination", named(one for one in EVERYTHING if not allowed(one)))
def test_what_is_not_declared_is_refused(combination: Combination) -> None:
    missing = needs(combination) & ~attention_class(combination[0]).provides
    with pytest.raises(IncompatibleError, match="|".join(str(one.name) for one in missing)):
        create(combination)(tokens(1, 5))
