"""Finds every attention and position by reading `conf/`, so that none can forget to join the contracts."""

from functools import partial
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from xformer.attention.base import Attention, AttentionContext
from xformer.config.groups import groups, written
from xformer.config.plugins import plugins
from xformer.config.validate import target
from xformer.core.mask import Mask
from xformer.layers.initialise import initialise
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
ATTENTIONS, POSITIONS = groups()["attention"], groups()["position"]
HEADS, HEAD_DIM, MAX_LENGTH = 2, 4, 24


def stated() -> list[dict[str, Any]]:
    """What each plugin states in its package's `contracts.yaml`: rows by group, and which attentions are quadratic."""
    files = [file for plugin in plugins() if (file := plugin.conf.parent / "contracts.yaml").is_file()]
    return [OmegaConf.to_container(OmegaConf.load(file)) for file in files]  # type: ignore[misc]


def row(group: str, name: str) -> dict[str, Any]:
    """A variant's row; of a plugin's variant, what its package states, or else the values of its option."""
    rows = {"attention": ATTENTION_ROWS, "position": POSITION_ROWS}[group]
    found = [each[group][name] for each in [{group: rows}, *stated()] if name in each.get(group, {})]
    return found[0] if found else {}


def attention_class(name: str) -> type[Attention]:
    return target(written("attention", name))  # type: ignore[return-value, arg-type]


def position_class(name: str) -> type[Position]:
    return target(written("position", name))  # type: ignore[return-value, arg-type]


def attention_factory(name: str) -> Any:
    return _factory("attention", name, row("attention", name))


def position_factory(name: str) -> Any:
    return _factory("position", name, row("position", name))


def build_attention(name: str, *, causal: bool, cross: bool = False, max_length: int = MAX_LENGTH) -> Attention:
    context = AttentionContext(HEADS, HEAD_DIM, max_length, max_length, causal, cross)
    attention: Attention = attention_factory(name)(context)
    initialise(attention, seed=0)
    return attention.eval()


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
    node = OmegaConf.to_container(written(group, name), resolve=True)
    assert isinstance(node, dict)
    keywords = {key: value for key, value in node.items() if not str(key).startswith("_") and key != "defaults"}
    return partial(target(OmegaConf.create({"_target_": node["_target_"]})), **{**keywords, **row})
