"""A directory that is either whole or absent: built aside, checked by hash, moved into place in one step."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"


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


def cached(cache: Path, name: str, build: Callable[[Path], None]) -> Path:
    """Return the directory `cache/name`, built unless an intact one is there.

    A killed process leaves only a temporary directory behind; of two that build at once one wins and both use its
    result.

    Args:
        cache: Created if missing.
        name: Must change with everything that the content depends on.
        build: Writes plain files into the directory it is given.
    """
    final = cache / name
    if final.exists():
        if intact(final):
            return final
        logger.warning("The cached data in %s is damaged and is built again.", final)
    cache.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
    try:
        build(temporary)
        files = {path.name: hash_of(path) for path in sorted(temporary.iterdir())}
        (temporary / MANIFEST).write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")
        _move(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def intact(entry: Path) -> bool:
    """Whether every file is what the manifest says."""
    try:
        files = json.loads((entry / MANIFEST).read_text(encoding="utf-8"))["files"]
        return all(hash_of(entry / name) == expected for name, expected in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def fingerprint(entry: Path) -> str:
    """Hash of an entry's content."""
    return digest(json.loads((entry / MANIFEST).read_text(encoding="utf-8"))["files"])


def hash_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _move(source: Path, target: Path) -> None:
    if target.exists() and not intact(target):
        damaged = Path(tempfile.mkdtemp(prefix=".damaged-", dir=target.parent))
        os.replace(target, damaged / target.name)
        shutil.rmtree(damaged, ignore_errors=True)
    try:
        os.replace(source, target)
    except OSError:
        # Another process was faster: its result is as good, unless it is broken.
        if not intact(target):
            raise
