"""Distances that are known beforehand."""

import pytest
import torch
from torch.testing import assert_close

from tests.contracts.variants import ATTENTIONS
from tests.inspection.probes.conftest import LISTOPS, TEXT, TRANSDUCTION, Prepared
from xformer.inspection.probes.effective_context import EffectiveContext, attention_distance, effective_context

PROBE = EffectiveContext(examples=2, share=0.9)


def distances(length: int) -> torch.Tensor:
    places = torch.arange(length)
    return (places - places[:, None]).abs()[None]


def test_both_numbers_of_rows_that_are_known() -> None:
    own, before = torch.eye(6), torch.eye(6).roll(-1, dims=1).tril()  # the second's first query reads nothing
    last = torch.zeros(6, 6)
    last[5] = torch.tensor([0.05, 0.0, 0.0, 0.1, 0.25, 0.6])
    weights = torch.stack((own, before, last))[None]
    assert_close(attention_distance(weights, distances(6)), torch.tensor([0.0, 1.0, 0.25 + 0.2 + 0.25]))
    for share, context in ((0.5, 0.0), (0.8, 1.0), (0.94, 2.0), (0.96, 5.0), (1.0, 5.0)):
        assert_close(effective_context(weights, distances(6), share), torch.tensor([0.0, 1.0, context]))


def test_both_sides_of_a_bidirectional_query_count_alike() -> None:
    weights = torch.full((1, 1, 9, 9), 1 / 9)
    for share, context in ((1 / 9, 0), (2 / 9, 1), (3 / 9, 1), (5 / 9, 2), (1.0, 4)):
        found = effective_context(weights[:, :, 4:5], distances(9)[:, 4:5], share - 1e-6)
        assert_close(found, torch.tensor([float(context)]))


@pytest.mark.parametrize("share", [0.9, 1.0])
@pytest.mark.parametrize("chosen", [TEXT, LISTOPS], ids=["causal", "both"])
def test_a_window_holds_all_that_is_read(chosen: list[str], share: float, prepared: Prepared) -> None:
    task, examples = prepared(*chosen, "attention=local", "attention.window=3", "size.layers=2")
    found = EffectiveContext(examples=2, share=share).measure(task, examples)
    assert len(found) == 2 * 2 * 2
    assert all(0 < value <= 3 for value in found.values())
    wide = PROBE.measure(*prepared(*chosen, "attention=full"))
    assert all(value > 3 for value in wide.values())


@pytest.mark.parametrize("name", ATTENTIONS)
def test_every_variant_has_one(name: str, prepared: Prepared) -> None:
    task, examples = prepared(*LISTOPS, f"attention={name}")
    found = PROBE.measure(task, examples)
    longest = max(example.tokens.shape[1] for example in examples)
    assert len(found) == 4
    assert all(0 < value < longest for value in found.values())


def test_sequences_of_two_kinds_have_no_distance(prepared: Prepared) -> None:
    found = PROBE.measure(*prepared(*TRANSDUCTION))
    assert {name.split("/")[1] for name in found} == {"encoder", "decoder"}
