"""Each layer's error, against both attentions written densely."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.contracts.variants import ATTENTIONS
from tests.inspection.probes.conftest import LISTOPS, TEXT, TRANSDUCTION, Prepared
from xformer.attention.linformer import Linformer
from xformer.inspection.attention_calls import attention_calls
from xformer.inspection.probes.approximation_error import ApproximationError
from xformer.tasks.base import Task

LAYERS = ["size.layers=2", "size.heads=4"]
PROBE = ApproximationError(examples=2)


def softmax(scores: Tensor, allowed: Tensor) -> Tensor:
    return scores.masked_fill(~allowed, -math.inf).softmax(-1)


@pytest.mark.parametrize("chosen", [["position=t5"], ["position=relative"], ["architecture=decoder"], TRANSDUCTION])
def test_full_attention_has_none(chosen: list[str], prepared: Prepared) -> None:
    found = PROBE.measure(*prepared(*([] if chosen == TRANSDUCTION else LISTOPS), *chosen, *LAYERS))
    assert len(found) == (6 if chosen == TRANSDUCTION else 2)
    assert all(value == 0 for value in found.values())


@pytest.mark.parametrize("causal", [False, True])
def test_local_attention_is_a_softmax_over_its_window(causal: bool, prepared: Prepared) -> None:
    task, examples = prepared(*(TEXT if causal else LISTOPS), "attention=local", "attention.window=3", *LAYERS)
    assert_error_is(task, examples, lambda distance: (distance.abs() <= 3) & ((distance <= 0) | (not causal)), causal)


def assert_error_is(task: Task, examples: list, reads, causal: bool) -> None:  # type: ignore[no-untyped-def]
    expected: dict[int, list[Tensor]] = {}
    for example in examples:
        for call in attention_calls(task.model, lambda example=example: task.step(example)):  # type: ignore[misc]
            scores = call.query @ call.key.mT / math.sqrt(call.query.shape[-1])
            places = torch.arange(scores.shape[-1])
            distance = places - places[:, None]
            exact = softmax(scores, (distance <= 0) | (not causal)) @ call.value
            approximate = softmax(scores, reads(distance)) @ call.value
            error = (approximate - exact).square().sum().sqrt() / exact.square().sum().sqrt()
            expected.setdefault(call.layer, []).append(error)
    found = PROBE.measure(task, examples)
    assert len(found) == len(expected) == 2
    for layer, errors in expected.items():
        value = found[f"approximation_error/self/layer{layer}"]
        assert value > 0.01
        assert_close(value, torch.stack(errors).mean(), atol=1e-5, rtol=1e-5)


def test_a_window_that_holds_everything_is_exact(prepared: Prepared) -> None:
    found = PROBE.measure(*prepared(*LISTOPS, "attention=local", "attention.window=64"))
    assert all(value < 1e-5 for value in found.values())


def test_a_projection_that_keeps_every_position_is_exact(prepared: Prepared) -> None:
    """Linformer with E = F = the identity, of as many mixtures as tokens."""
    task, _ = prepared(*TEXT, "architecture=encoder", "attention=linformer", "attention.rank=24")
    _, examples = prepared(*TEXT, "architecture=encoder")
    for module in task.modules():
        if isinstance(module, Linformer):
            assert module.project_key is not None
            assert module.project_value is not None
            for weight in (module.project_key, module.project_value):
                torch.nn.init.eye_(weight.data[0])
    found = PROBE.measure(task, examples)
    assert all(value < 1e-5 for value in found.values())


@pytest.mark.parametrize("name", ATTENTIONS)
def test_every_variant_has_an_error_in_each_layer(name: str, prepared: Prepared) -> None:
    found = PROBE.measure(*prepared(*LISTOPS, f"attention={name}", *LAYERS))
    assert set(found) == {f"approximation_error/self/layer{layer}" for layer in range(2)}
    assert all(value.isfinite() for value in found.values())
