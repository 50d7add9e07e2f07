"""Checks that an entry of `pairs` computes the same function as the implementation it is compared with."""

from collections.abc import Mapping
from typing import Any

from xformer.benchmark.modules import Fused
from xformer.benchmark.peers import PEERS, Peer
from xformer.config.groups import nearest
from xformer.errors import ConfigError

TORCH = "torch fused"
FUSED = Peer(TORCH, "torch", {}, Fused)
"""The name of full attention, which any variant may be compared with."""


def peer_named(name: str) -> Peer:
    """Find an implementation by name.

    Raises:
        ConfigError: no implementation has that name.
    """
    known = {peer.name: peer for peer in (FUSED, *PEERS)}
    if name not in known:
        raise ConfigError(f"pairs has against: {name}, which is not known; {nearest(name, known)}")
    return known[name]


def check_same_function(settings: Mapping[str, Any], defaults: Mapping[str, Any], peer: Peer) -> None:
    """Refuse settings with which our variant does not compute the same function as the peer.

    Args:
        settings: the entry's settings of the variant; missing ones are those of the peer.
        defaults: the values of the variant's file.
        peer: the peer, built with its own settings.

    Raises:
        ConfigError: naming the first key that differs.
    """
    if not peer.ours:
        return
    built = {"position": "none", **defaults, **peer.ours}
    for key, value in settings.items():
        if value != built.get(key):
            raise ConfigError(
                f"pairs has {key}: {value} against {peer.name}, which is built with {key}: {built.get(key)}, so that "
                f"they would compute different things; leave {key} out or give it that value."
            )
