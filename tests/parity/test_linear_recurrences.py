"""The gated delta rule, gated linear attention, retention and Mamba-2 against other people's implementations."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize
from torch.testing import assert_close
from transformers import Mamba2Config, Qwen3NextConfig
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer
from transformers.models.qwen3_next.modeling_qwen3_next import (
    Qwen3NextGatedDeltaNet,
    torch_chunk_gated_delta_rule,
    torch_recurrent_gated_delta_rule,
)

from xformer.attention.base import AttentionContext
from xformer.attention.gated_deltanet import GatedDeltaNet
from xformer.attention.kernels.linear_recurrence.delta_rule import chunked_delta_rule
from xformer.attention.kernels.linear_recurrence.linear_attention import chunked_linear_attention
from xformer.attention.mamba2 import Mamba2
from xformer.core.mask import Mask
from xformer.layers.initialise import initialise

HEADS, HEAD_DIM, LENGTHS = 4, 8, [1, 7, 64, 150]
D_MODEL = HEADS * HEAD_DIM
CONTEXT = AttentionContext(HEADS, HEAD_DIM, 200, 200, True)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def padded(length: int) -> Mask:
    """Two rows, the second with padding on its left."""
    valid = torch.ones(2, length, dtype=torch.bool)
    valid[1, : length // 3] = False
    positions = (valid.long().cumsum(-1) - 1).clamp(min=0)
    return Mask(positions, positions, True, valid)


@pytest.mark.parametrize("theirs", [torch_chunk_gated_delta_rule, torch_recurrent_gated_delta_rule])
@pytest.mark.parametrize("length", LENGTHS)
def test_the_delta_rule_of_transformers(theirs: Callable[..., Any], length: int) -> None:
    """They divide the queries by sqrt(d)."""
    q, k, v = (normal(2, length, HEADS, features, seed=features) for features in (HEAD_DIM, HEAD_DIM, 5))
    k = normalize(k, dim=-1)
    beta, g = normal(2, length, HEADS, seed=1).sigmoid(), logsigmoid(normal(2, length, HEADS, seed=2))
    initial = normal(2, HEADS, HEAD_DIM, 5, seed=3)
    expected, last = theirs(q, k, v, g, beta, initial_state=initial, output_final_state=True)
    of_heads = (x.transpose(1, 2) for x in (q * HEAD_DIM**-0.5, k, v, beta[..., None], g[..., None]))
    found, state = chunked_delta_rule(*of_heads, initial)
    assert_close(found.transpose(1, 2), expected, atol=1e-5, rtol=1e-5)
    assert_close(state, last, atol=1e-5, rtol=1e-5)


def gated_deltanets() -> tuple[GatedDeltaNet, Qwen3NextGatedDeltaNet]:
    """Ours, and the layer of Qwen3-Next with the same numbers, which lie head by head in its projections."""
    ours = GatedDeltaNet(CONTEXT, expand_value=2, convolution=4, kernel="torch")
    initialise(ours, seed=0)
    torch.nn.init.normal_(ours.norm.weight)
    config = Qwen3NextConfig(
        hidden_size=D_MODEL,
        linear_num_key_heads=HEADS,
        linear_num_value_heads=HEADS,
        linear_key_head_dim=HEAD_DIM,
        linear_value_head_dim=2 * HEAD_DIM,
        linear_conv_kernel_dim=4,
        rms_norm_eps=1e-5,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
    )
    theirs = Qwen3NextGatedDeltaNet(config, 0).eval()
    by_head = [layer.weight.unflatten(0, (HEADS, -1)) for layer in (ours.query, ours.key, ours.value, ours.gate)]
    gates = [layer.weight.unflatten(0, (HEADS, -1)) for layer in (ours.write, ours.step)]
    state = {
        "in_proj_qkvz.weight": torch.cat(by_head, dim=1).flatten(0, 1),
        "in_proj_ba.weight": torch.cat(gates, dim=1).flatten(0, 1),
        "conv1d.weight": ours.convolve.weight,
        "dt_bias": ours.step_bias,
        "A_log": ours.log_rate,
        "norm.weight": ours.norm.weight,
        "out_proj.weight": ours.output.weight,
    }
    theirs.load_state_dict(state)
    return ours.eval(), theirs


@pytest.mark.parametrize("length", LENGTHS)
def test_gated_deltanet_is_that_of_qwen3_next(length: int) -> None:
    (ours, theirs), x = gated_deltanets(), normal(2, length, D_MODEL)
    assert_close(ours(x), theirs(x), atol=2e-5, rtol=2e-5)


def test_gated_deltanet_of_a_padded_batch_is_that_of_qwen3_next() -> None:
    (ours, theirs), x, mask = gated_deltanets(), normal(2, 50, D_MODEL), padded(50)
    assert mask.key_padding is not None
    found, expected = ours(x, mask=mask), theirs(x, attention_mask=mask.key_padding.long())
    assert_close(found[:1], expected[:1], atol=2e-5, rtol=2e-5)
    # Their gates decay the empty state at padding, which is no matter, and the convolution reads zeros there.
    assert_close(found[mask.key_padding], expected[mask.key_padding], atol=2e-5, rtol=2e-5)


def mambas(groups: int) -> tuple[Mamba2, Mamba2Mixer]:
    """Ours, and transformers' mixer with the same numbers."""
    options = {"state_size": 16, "expand": 2, "groups": groups, "convolution": 4, "step_low": 0.001, "step_high": 0.1}
    ours = Mamba2(CONTEXT, kernel="torch", **options)  # type: ignore[arg-type]
    initialise(ours, seed=0)
    torch.nn.init.normal_(ours.norm.weight)
    torch.nn.init.normal_(ours.skip)
    config = Mamba2Config(
        hidden_size=D_MODEL,
        num_heads=2 * HEADS,
        head_dim=HEAD_DIM,
        state_size=16,
        expand=2,
        n_groups=groups,
        conv_kernel=4,
        use_bias=False,
        use_conv_bias=True,
        layer_norm_epsilon=1e-5,
        chunk_size=32,
        num_hidden_layers=1,
    )
    theirs = Mamba2Mixer(config, 0).eval()
    state = {
        "in_proj.weight": ours.input.weight,
        "conv1d.weight": ours.convolve.weight,
        "conv1d.bias": ours.convolve.bias,
        "dt_bias": ours.step_bias,
        "A_log": ours.log_rate,
        "D": ours.skip,
        "norm.weight": ours.norm.weight,
        "out_proj.weight": ours.output.weight,
    }
    theirs.load_state_dict(state)
    return ours.eval(), theirs


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("length", LENGTHS)
def test_mamba2_is_that_of_transformers(length: int, groups: int) -> None:
    (ours, theirs), x = mambas(groups), normal(2, length, D_MODEL)
    assert_close(ours(x), theirs(x), atol=2e-5, rtol=2e-5)


def test_mamba2_has_the_gradients_of_transformers() -> None:
    (ours, theirs), x = mambas(1), normal(2, 70, D_MODEL)
    mine, other = ours(x).square().mean(), theirs(x).square().mean()
    names = ["input", "convolve", "log_rate", "step_bias", "skip", "norm", "output"]
    pairs = zip(
        [p for name in names for p in _parameters(getattr(ours, name))],
        [p for name in ("in_proj", "conv1d", "A_log", "dt_bias", "D", "norm", "out_proj")
         for p in _parameters(getattr(theirs, name))],
        strict=True,
    )  # fmt: skip
    for a, b in pairs:
        found, expected = (
            torch.autograd.grad(mine, a, retain_graph=True),
            torch.autograd.grad(other, b, retain_graph=True),
        )
        assert_close(found, expected, atol=2e-5, rtol=2e-4)


def _parameters(found: torch.nn.Module | torch.nn.Parameter) -> list[torch.nn.Parameter]:
    return [found] if isinstance(found, torch.nn.Parameter) else list(found.parameters())


def naive(module: str) -> ModuleType:
    """A reference in plain PyTorch of flash-linear-attention, read from its file: the package itself needs Triton."""
    package = importlib.util.find_spec("fla")
    assert package is not None, "fla-core is part of the extra parity"
    assert package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]) / "ops" / module / "naive.py"
    spec = importlib.util.spec_from_file_location(f"naive_{module}", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize("length", LENGTHS)
def test_gated_linear_attention_is_fla_s_reference(length: int) -> None:
    """They divide the queries by sqrt(d)."""
    q, k, v = (normal(2, length, HEADS, features, seed=features) for features in (HEAD_DIM, HEAD_DIM, HEAD_DIM))
    g, initial = logsigmoid(normal(2, length, HEADS, HEAD_DIM, seed=1)), normal(2, HEADS, HEAD_DIM, HEAD_DIM, seed=2)
    expected, last = naive("gla").naive_recurrent_gla(q, k, v, g, initial_state=initial, output_final_state=True)
    of_heads = (x.transpose(1, 2) for x in (q * HEAD_DIM**-0.5, k, v, g))
    found, state = chunked_linear_attention(*of_heads, initial)
    assert_close(found.transpose(1, 2), expected, atol=1e-5, rtol=1e-5)
    assert_close(state, last, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("length", LENGTHS)
def test_retention_is_fla_s_reference(length: int) -> None:
    q, k, v = (normal(2, HEADS, length, HEAD_DIM, seed=seed) for seed in range(3))
    gamma = 1 - 2.0 ** (-5 - torch.arange(HEADS))
    found, _ = chunked_linear_attention(
        q * HEAD_DIM**-0.5, k, v, gamma.log()[None, :, None, None].expand(1, -1, length, 1)
    )
    assert_close(found, naive("retention").naive_retention(q, k, v), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("length", LENGTHS)
def test_the_delta_rule_of_fla(length: int) -> None:
    q, k, v = (normal(2, length, HEADS, features, seed=features) for features in (HEAD_DIM, HEAD_DIM, 5))
    k, beta, g = normalize(k, dim=-1), normal(2, length, HEADS, seed=1).sigmoid(), logsigmoid(normal(2, length, HEADS))
    expected, _ = naive("gated_delta_rule").naive_recurrent_gated_delta_rule(q, k, v, beta, g)
    of_heads = (x.transpose(1, 2) for x in (q * HEAD_DIM**-0.5, k, v, beta[..., None], g[..., None]))
    assert_close(chunked_delta_rule(*of_heads)[0].transpose(1, 2), expected, atol=1e-5, rtol=1e-5)
