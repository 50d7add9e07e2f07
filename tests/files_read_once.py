"""Hydra's source of configuration files, which parses each file once in a process: the tests compose thousands."""

import os
from copy import deepcopy
from dataclasses import replace

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.plugins.config_source import ConfigResult

_load = FileConfigSource.load_config
_parsed: dict[tuple[str, str, str, int, int], ConfigResult] = {}


def load_config(self: FileConfigSource, config_path: str) -> ConfigResult:
    """What `FileConfigSource.load_config` returns, which Hydra changes as it composes: a copy for each call."""
    try:
        status = os.stat(os.path.join(self.path, self._normalize_file_name(config_path)))
    except OSError:
        return _load(self, config_path)  # which says what is missing
    key = self.provider, self.path, config_path, status.st_mtime_ns, status.st_size
    if key not in _parsed:
        _parsed[key] = _load(self, config_path)
    found = _parsed[key]
    return replace(found, config=deepcopy(found.config), header=dict(found.header))


FileConfigSource.load_config = load_config
