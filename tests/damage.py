"""Files damaged at random, as a full disk, an editor or another version may leave them."""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from xformer.errors import XformerError

STRANGE: list[Any] = [
    None, "text", "", "nan", "$x_{$", "漢", 3, -1, 0, 1.5, True, float("nan"), float("inf"), -1e308, 1e308, 10**400,
    10**30, [], {}, [1], [[]], {"a": 1}, {"": None}, "\ud800", "${nothing}", "[red]", "\x00", "2020-01-01",
]  # fmt: skip


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested values."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, child in children for place in places(child, (*path, key)))]


def changed(node: Any, chance: random.Random) -> Any:
    """Nested values with one of them replaced, removed or doubled under another name."""
    path = chance.choice(places(node))
    if not path:
        return chance.choice(STRANGE)
    inner = node
    for key in path[:-1]:
        inner = inner[key]
    if chance.random() < 0.2:
        del inner[path[-1]]
    elif chance.random() < 0.1 and isinstance(inner, dict):
        inner[chance.choice([3, "extra", "1e5", ""])] = inner[path[-1]]
    else:
        inner[path[-1]] = chance.choice(STRANGE)
    return node


def dumped(value: Any, suffix: str) -> bytes:
    text = json.dumps(value) if suffix == ".json" else yaml.safe_dump(value, allow_unicode=False)
    return text.encode("utf-8", errors="surrogatepass")


def damaged_bytes(content: bytes, chance: random.Random) -> bytes:
    kind, at = chance.randrange(6), chance.randrange(len(content) + 1)
    return [
        content[:at],
        b"",
        chance.randbytes(50),
        content[:at] + chance.randbytes(3) + content[at + 3 :],
        content.replace(b",", chance.choice([b",,", b"\t", b";", b"\0,", b'"', b"\n"]), chance.randrange(1, 9)),
        content.decode("utf-8", "replace").encode("utf-16"),
    ][kind]


def damage(file: Path, chance: random.Random) -> None:
    """Damage one file: its bytes, a value in it, or its being a file at all."""
    if chance.random() < 0.1:
        file.unlink()
        if chance.random() < 0.5:
            file.mkdir()
        return
    content = file.read_bytes()
    if file.suffix in (".json", ".yaml", ".yml") and chance.random() < 0.7:
        read = json.loads if file.suffix == ".json" else yaml.safe_load
        content = dumped(changed(read(content), chance), file.suffix)
    elif file.suffix == ".csv" and chance.random() < 0.7:
        rows = [line.split(",") for line in content.decode().splitlines()]
        row = chance.choice(rows)
        row[chance.randrange(len(row))] = str(chance.choice(STRANGE))
        content = "\n".join(",".join(row) for row in rows).encode("utf-8", errors="surrogatepass") + b"\n"
    else:
        content = damaged_bytes(content, chance)
    file.write_bytes(content)


@contextmanager
def damaged(files: list[Path], number: int) -> Iterator[Path]:
    """One of the files, damaged as `number` says; as it was afterwards."""
    chance = random.Random(number)
    file = chance.choice(sorted(files))
    before = file.read_bytes()
    damage(file, chance)
    now = file.read_bytes() if file.is_file() else b""
    try:
        yield file
    except Exception as error:
        error.add_note(f"case {number}, {file}: {now[:2000]!r} was {before[:1500]!r}")
        raise
    finally:
        if file.is_dir():
            file.rmdir()
        file.write_bytes(before)


def sentence_of(command: Callable[[], object]) -> str | None:
    """What a command says to the user; None where it works. Any other error than the user's is one of ours."""
    try:
        command()
    except XformerError as error:
        said = str(error)
    else:
        return None
    assert "\n" not in said, said
    return said
