"""A short hash of values, equal on every machine."""

import hashlib
import json
from typing import Any


def digest(*values: Any) -> str:
    """Hash values that JSON can hold; 16 hex digits, equal on every machine."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
