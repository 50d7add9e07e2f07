"""The user's own directories, as the XDG Base Directory Specification places them."""

import os
from pathlib import Path


def user_cache() -> Path:
    """The cache directory: `~/.cache/xformer`, unless `XDG_CACHE_HOME` says otherwise."""
    return _directory("XDG_CACHE_HOME", ".cache")


def user_config() -> Path:
    """The directory of the user's settings: `~/.config/xformer`, unless `XDG_CONFIG_HOME` says otherwise."""
    return _directory("XDG_CONFIG_HOME", ".config")


def _directory(variable: str, default: str) -> Path:
    stated = Path(os.environ.get(variable, ""))
    return (stated if stated.is_absolute() else Path.home() / default) / "xformer"  # a relative one is to be ignored
