"""A short hash of values, equal on every machine."""

import hashlib
import json
from typing import Any


def digest(*values: Any) -> str:
    """Hash values that JSON can hold; 16 hex digits, equal on every machine."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def stable_name_of(kind: type) -> str:
    """The `stable_name` that a class states for what is hashed and stored of it: its own, and no parent's.

    It stays when the class is renamed, so that caches and fingerprints stay too.

    Raises:
        TypeError: the class states none.
    """
    try:
        return str(vars(kind)["stable_name"])
    except KeyError:
        raise TypeError(
            f"{kind.__name__} states no name for its caches and fingerprints: stable_name = {kind.__name__!r}, which "
            "stays when the class is renamed."
        ) from None
