"""Finds every attention and position by reading `conf/`, so that none can forget to join the contracts."""

import inspect
from functools import cache, partial
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from tests.contracts.toy_mixer import ToyMixer
from xformer.attention.base import Attention, AttentionContext, Capable
from xformer.attention.mixer import TokenMixer
from xformer.config.groups import groups, load_option
from xformer.config.plugins import plugins
from xformer.config.validate import target
from xformer.core.capability import Capability
from xformer.core.mask import Mask
from xformer.layers.initialise import initialise
from xformer.layers.multi_head import token_mixer
from xformer.position.base import Position, PositionContext

# One row per variant: hyper-parameters small enough for sequences of a dozen tokens. A yaml without a row fails.
ATTENTION_ROWS: dict[str, dict[str, Any]] = {
    "full": {},
    "local": {"window": 3},
    "sparse": {"stride": 3},
    "bigbird": {"block": 2},
    "linformer": {"rank": 4},
    "performer": {"features": 8},
    "additive": {"hidden": 6},
    "multiplicative": {},
    "retention": {},
    "gla": {"rank": 3, "expand_key": 1.0},
    "gated_deltanet": {},
    "mamba2": {"state_size": 6},
}
POSITION_ROWS: dict[str, dict[str, Any]] = {
    "none": {},
    "sinusoidal": {},
    "learned": {},
    "rotary": {},
    "alibi": {},
    "relative": {"clip": 4},
    "transformer_xl": {},
    "t5": {"buckets": 8, "max_distance": 16},
}
HEADS, HEAD_DIM, MAX_LENGTH = 2, 4, 24
TOYS: dict[str, tuple[type[TokenMixer], dict[str, Any]]] = {"toy_mixer": (ToyMixer, {"decay": 0.9})}
"""Variants that are no option, to prove the contracts themselves."""


# Thousands of tests build a variant, and reading its file takes longer than building it.
_option = cache(load_option)


def stated() -> list[dict[str, Any]]:
    """What each plugin states in its package's `contracts.yaml`: rows by group, and which attentions are quadratic."""
    files = [file for plugin in plugins() if (file := plugin.conf.parent / "contracts.yaml").is_file()]
    return [OmegaConf.to_container(OmegaConf.load(file)) for file in files]  # type: ignore[misc]


def row(group: str, name: str) -> dict[str, Any]:
    """A variant's row; of a plugin's variant, what its package states, or else the values of its option."""
    rows = {"attention": ATTENTION_ROWS, "position": POSITION_ROWS}[group]
    found = [each[group][name] for each in [{group: rows}, *stated()] if name in each.get(group, {})]
    return found[0] if found else {}


def attention_class(name: str) -> type[Capable]:
    if name in TOYS:
        return TOYS[name][0]
    return target(_option("attention", name))  # type: ignore[return-value, arg-type]


# A hybrid is made of the others, by a function.
OPTIONS = [name for name in groups()["attention"] if inspect.isclass(attention_class(name))]
ATTENTIONS = [name for name in OPTIONS if issubclass(attention_class(name), Attention)]
MIXERS = [*(name for name in OPTIONS if issubclass(attention_class(name), TokenMixer)), *TOYS]
VARIANTS = [*ATTENTIONS, *MIXERS]
POSITIONS = groups()["position"]
ENCODERS = [name for name in OPTIONS if Capability.BIDIRECTIONAL in attention_class(name).provides]


def provides(name: str, *needed: Capability) -> bool:
    return all(capability in attention_class(name).provides for capability in needed)


def forms(name: str) -> list[bool]:
    """In which forms a variant comes: whether it is causal."""
    return [causal for causal in (False, True) if provides(name, role(causal))]


def role(causal: bool) -> Capability:
    return Capability.CAUSAL if causal else Capability.BIDIRECTIONAL


def position_class(name: str) -> type[Position]:
    return target(_option("position", name))  # type: ignore[return-value, arg-type]


def attention_factory(name: str) -> Any:
    if name in TOYS:
        found, values = TOYS[name]
        return partial(found, **values)
    return _factory("attention", name, row("attention", name))


def position_factory(name: str) -> Any:
    return _factory("position", name, row("position", name))


def build_attention(name: str, *, causal: bool, cross: bool = False, max_length: int = MAX_LENGTH) -> Attention:
    context = AttentionContext(HEADS, HEAD_DIM, max_length, max_length, causal, cross)
    attention: Attention = attention_factory(name)(context)
    initialise(attention, seed=0)
    return attention.eval()


def build_mixer(name: str, *, causal: bool, max_length: int = MAX_LENGTH, **context: Any) -> TokenMixer:
    """A variant as it stands in a layer, with its projections; `context` may have other heads, for example."""
    dimensions = {"heads": HEADS, "head_dim": HEAD_DIM, "max_query": max_length, "max_key": max_length, **context}
    mixer = token_mixer(attention_factory(name)(AttentionContext(**dimensions, causal=causal)))
    initialise(mixer, seed=0)
    return mixer.eval()


def build_position(name: str, *, causal: bool, max_length: int = MAX_LENGTH) -> Position:
    position: Position = position_factory(name)(PositionContext(8, HEADS, HEAD_DIM, 1, max_length, causal))
    initialise(position, seed=0)
    return position.eval()


def qkv(batch: int, queries: int, keys: int | None = None, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys = queries if keys is None else keys
    return tuple(  # type: ignore[return-value]
        torch.randn(batch, HEADS, length, HEAD_DIM, generator=generator) for length in (queries, keys, keys)
    )


def self_mask(length: int, causal: bool, key_padding: Tensor | None = None, start: int = 0) -> Mask:
    positions = torch.arange(start, start + length)[None]
    return Mask(positions, positions, causal, key_padding)


def _factory(group: str, name: str, row: dict[str, Any]) -> Any:
    node = OmegaConf.to_container(_option(group, name), resolve=True)
    assert isinstance(node, dict)
    keywords = {key: value for key, value in node.items() if not str(key).startswith("_") and key != "defaults"}
    return partial(target(OmegaConf.create({"_target_": node["_target_"]})), **{**keywords, **row})
