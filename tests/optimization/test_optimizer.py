"""What the optimisers are given."""

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from omegaconf import OmegaConf
from torch import nn

from tests.contracts.toy_mixer import ToyMixer
from tests.contracts.variants import ATTENTIONS, POSITIONS
from xformer.architecture.decoder import Decoder
from xformer.architecture.encoder import Encoder
from xformer.architecture.size import Size
from xformer.architecture.stack import Stack
from xformer.attention.base import AttentionContext
from xformer.attention.full import Full
from xformer.config.groups import CONF
from xformer.config.validate import target
from xformer.core.embedding import Embedding
from xformer.data.spec import ImageSpec
from xformer.layers.feed_forward import Activation
from xformer.layers.norm import NormLayer
from xformer.layers.patches import PatchEmbedding
from xformer.optimization.optimizer import adam, adamw
from xformer.position.base import Position


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.frozen = nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 4)
        self.frozen.requires_grad_(False)


def test_adamw_decays_matrices_alone() -> None:
    net = Net()
    groups = adamw(net, False, lr=0.1, betas=[0.9, 0.99], eps=1e-8, weight_decay=0.5).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    rest = {id(p) for group in groups if not group["weight_decay"] for p in group["params"]}
    assert decayed == {id(net.layer.weight)}
    assert rest == {id(net.layer.bias), id(net.norm.weight), id(net.norm.bias)}
    assert all(group["betas"] == (0.9, 0.99) for group in groups)


def test_fused_and_plain_take_the_same_step() -> None:
    after = []
    for fused in (False, True):
        torch.manual_seed(0)
        net = Net()
        optimizer = adamw(net, fused, lr=0.1, betas=[0.9, 0.98], eps=1e-8, weight_decay=0.1)
        net.norm(net.layer(torch.ones(2, 3))).square().sum().backward()
        optimizer.step()
        after.append(net.layer.weight)
    torch.testing.assert_close(after[0], after[1])


def test_adam_leaves_frozen_parameters_out() -> None:
    optimizer = adam(Net(), False, lr=0.1, betas=[0.9, 0.98], eps=1e-9)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4
    assert optimizer.defaults["eps"] == 1e-9


SIZE = Size(d_model=15, layers=2, heads=5, feed_forward=22)
"""No other dimension is 5, so that one of 5 is of heads."""
VOCABULARY, LENGTH = 19, 28


def options(group: str, name: str, fixed: dict[str, Any]) -> list[Any]:
    """What an option of a group builds with every choice that its constructor offers."""
    node = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"), resolve=True)
    assert isinstance(node, dict)
    made: Any = target(OmegaConf.create({"_target_": node["_target_"]}))
    given = {**{key: value for key, value in node.items() if not str(key).startswith("_")}, **fixed}
    hints = get_type_hints(made.__init__)
    kinds = {key: get_args(hint) for key, hint in hints.items() if get_origin(hint) is Literal}
    kinds |= {key: (False, True) for key, hint in hints.items() if hint is bool}
    choices = (dict(zip(kinds, values, strict=True)) for values in itertools.product(*kinds.values()))
    return [partial(made, **{**given, **chosen}) for chosen in choices]


def models() -> Iterator[nn.Module]:
    """Every attention with every choice, every position scheme likewise, and every layer that a stack may have."""
    plain: dict[str, Any] = {
        "dropout": 0.0,
        "stochastic_depth": 0.0,
        "gradient_checkpointing": False,
        "key_value_heads": None,
    }
    layers = {
        "norm": "pre",
        "norm_layer": "layer",
        "activation": "gelu",
        "share_layers": False,
        "key_value_heads": None,
    }

    def stack(kind: type[Stack], attention: Any = Full, position: Any = Position, **other: Any) -> Stack:
        embed = partial(Embedding, VOCABULARY)
        return kind(embed, LENGTH, size=SIZE, attention=attention, position=position, **{**plain, **layers, **other})

    for name in ATTENTIONS:
        rows = {"linformer": {"rank": 7}, "additive": {"hidden": 8}, "performer": {"features": 9}}
        yield from (stack(Encoder, attention) for attention in options("attention", name, rows.get(name, {})))
    for name, kind in itertools.product(POSITIONS, (Encoder, Decoder)):
        # Of 3 features of a head, 2 are rotated.
        rows = {"rotary": {"fraction": 0.7}, "relative": {"clip": 6}, "t5": {"buckets": 8, "max_distance": 20}}
        yield from (stack(kind, position=position) for position in options("position", name, rows.get(name, {})))
    for norm_layer, activation in itertools.product(get_args(NormLayer), get_args(Activation)):
        yield stack(Encoder, norm_layer=norm_layer, activation=activation)
    for class_token in (False, True):
        image = ImageSpec(channels=1, height=8, width=8, mean=[0.5], std=[0.5])
        yield PatchEmbedding(15, 4, mean=image.mean, std=image.std, class_token=class_token)


class Exempting(ToyMixer):
    """Leaves its gates alone."""

    def undecayed(self) -> list[nn.Parameter]:
        return [self.gates.weight]


def test_a_mixer_may_exempt_a_matrix() -> None:
    mixer = Exempting(AttentionContext(2, 4, 8, 8, True), decay=0.9)
    *_, rest = adamw(mixer, False, lr=0.1, betas=[0.9, 0.99], eps=1e-8, weight_decay=0.5).param_groups
    assert rest["weight_decay"] == 0
    vectors = [mixer.gates.weight, mixer.gates.bias, mixer.decay, mixer.output.bias]
    assert {id(parameter) for parameter in rest["params"]} == {*map(id, vectors)}


def test_what_is_decayed_is_a_matrix_whatever_is_stored_together() -> None:
    """The rule of the docstring, from the sizes alone: heads count as no dimension, and neither does one of 1."""
    seen = set()
    for model in models():
        groups = adamw(model, False, lr=0.1, betas=[0.9, 0.99], eps=1e-8, weight_decay=0.5).param_groups
        decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
        assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
        for name, parameter in model.named_parameters():
            is_matrix = len([size for size in parameter.shape if size not in (1, SIZE.heads)]) >= 2
            assert (id(parameter) in decayed) == is_matrix, (name, tuple(parameter.shape))
            seen.add((name.split(".")[-1], is_matrix))
    assert {("u", False), ("v", False), ("bias", False), ("weight", True), ("weight", False)} <= seen
    assert {("project_key", True), ("project_key", False), ("from_key", True)} <= seen
