"""An on-disk cache whose entries are complete or absent: built aside, checked by hash, moved in one step."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from xformer.core.digest import digest

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"


def cached(cache: Path, name: str, build: Callable[[Path], None]) -> Path:
    """Return the directory `cache/name`, building it if there is no intact one.

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
    """Whether every file matches the manifest."""
    try:
        files = json.loads((entry / MANIFEST).read_text(encoding="utf-8"))["files"]
        return all(hash_of(entry / name) == expected for name, expected in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def fingerprint(entry: Path) -> str:
    """The hash of a cache entry's content."""
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
