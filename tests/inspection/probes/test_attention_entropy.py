"""Entropies that are known beforehand."""

import math

import pytest
import torch
from torch.testing import assert_close

from tests.contracts.variants import ATTENTIONS
from tests.inspection.probes.conftest import LISTOPS, TEXT, TRANSDUCTION, Prepared
from xformer.inspection.probes.attention_entropy import AttentionEntropy
from xformer.layers.multi_head import MultiHeadAttention
from xformer.tasks.base import Task

PROBE = AttentionEntropy(examples=2)


def with_queries_of_zero(task: Task) -> Task:
    for module in task.modules():
        if isinstance(module, MultiHeadAttention):
            torch.nn.init.zeros_(module.query.weight)
    return task


def mean_log(*lengths: int) -> float:
    return sum(map(math.log, lengths)) / len(lengths)


@pytest.mark.parametrize("name", ["full", "sparse", "bigbird", "local", "multiplicative"])
def test_attention_that_is_uniform_has_the_logarithm_of_what_it_reads(name: str, prepared: Prepared) -> None:
    window = ["attention.window=3"] if name == "local" else []
    blocks = ["attention.block=24"] if name == "bigbird" else []
    strides = ["attention.stride=1"] if name == "sparse" else []
    task, examples = prepared(*TEXT, f"attention={name}", *window, *blocks, *strides)
    found = PROBE.measure(with_queries_of_zero(task), examples)
    reads = [min(place, 4) if name == "local" else place for place in range(1, 25)]
    assert set(found) == {f"attention_entropy/self/layer0/head{head}" for head in range(2)}
    for value in found.values():
        assert_close(value.item(), mean_log(*reads), atol=1e-4, rtol=1e-4)


def test_the_slots_of_an_encoder_decoder(prepared: Prepared) -> None:
    task, examples = prepared(*TRANSDUCTION)
    found = PROBE.measure(with_queries_of_zero(task), examples)
    sources = [example.source_tokens.shape[1] for example in examples]
    targets = [example.target_tokens.shape[1] for example in examples]
    assert sources[0] != sources[1]
    causal = [mean_log(*range(1, target + 1)) for target in targets]
    expected = {"encoder": mean_log(*sources), "cross": mean_log(*sources), "decoder": sum(causal) / 2}
    for slot, value in expected.items():
        for head in range(2):
            assert_close(found[f"attention_entropy/{slot}/layer0/head{head}"].item(), value, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in ATTENTIONS if name != "linformer"])
def test_every_variant_whose_weights_are_a_distribution_has_one(name: str, prepared: Prepared) -> None:
    task, examples = prepared(*LISTOPS, f"attention={name}")
    found = PROBE.measure(task, examples)
    longest = max(example.tokens.shape[1] for example in examples)
    assert len(found) == 2
    assert all(0 < value < math.log(longest) for value in found.values())


def test_mixtures_with_signs_have_none(prepared: Prepared) -> None:
    assert PROBE.measure(*prepared(*LISTOPS, "attention=linformer")) == {}
