"""A short hash of values, equal on every machine."""

import hashlib
import json
from typing import Any

from xformer.errors import ConfigError


def digest(*values: Any) -> str:
    """Hash values that JSON can hold; 16 hex digits, equal on every machine."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def stable_name_of(kind: type) -> str:
    """The `stable_name` that a class itself defines, not a parent, for its caches and fingerprints.

    It stays the same when the class is renamed, so caches and fingerprints stay valid.

    Raises:
        ConfigError: the class defines none.
    """
    try:
        return str(vars(kind)["stable_name"])
    except KeyError:
        raise ConfigError(
            f"{kind.__module__}.{kind.__qualname__} defines no stable_name, the name in its caches and hashes: "
            f'add stable_name = "{kind.__name__}" to the class itself, and keep that value if the class is renamed.'
        ) from None
