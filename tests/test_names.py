"""Names are the field's words: none is retired, and public ones in different folders are never alike."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import xformer

ROOT = Path(xformer.__file__).parent
OTHERS = ("contracts", "template")  # tests, and a package of its own
SOURCES = [path for path in sorted(ROOT.rglob("*.py")) if path.relative_to(ROOT).parts[0] not in OTHERS]

SHARED = {
    "main": "what `xformer COMMAND` runs, one in each module of commands/",
}
"""Public names that stand in more than one folder, and why they may."""

RETIRED = (
    "again", "by_hand", "counted", "counting", "facts", "floor", "floors", "give", "given", "inherit", "inheritance",
    "inherited", "note", "own", "places", "real", "said", "taken", "tell", "told", "without_effect",
)  # fmt: skip
"""Words that say nothing, or for which the field has another: `valid` for real, `positions` for places, ..."""


def words(name: str) -> str:
    """A name's words between underscores: `_real_` of `_real`, `_stop_with_given_` of `StopWithGiven`."""
    return f"_{re.sub(r'(?<=[a-z0-9])(?=[A-Z])', '_', name).lower().strip('_')}_"


def is_retired(name: str) -> bool:
    return any(f"_{word}_" in words(name) for word in RETIRED)


def names(tree: ast.AST) -> Iterator[str]:
    """Every name that a file gives to something: classes, functions, parameters, variables and attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield node.name
            case ast.arg():
                yield node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "retired"),
    [("_real", True), ("tell_resumed", True), ("parts_by_hand", True), ("MyOwn", True), ("realistic", False)],
)
def test_a_retired_word_is_found_among_others(name: str, retired: bool) -> None:
    assert is_retired(name) is retired


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_name_has_a_retired_word(path: Path) -> None:
    assert [
        name for name in [*path.relative_to(ROOT).with_suffix("").parts, *names(parsed(path))] if is_retired(name)
    ] == []


def test_no_two_public_names_in_different_folders_are_alike() -> None:
    folders: dict[str, set[str]] = defaultdict(set)
    for path in SOURCES:
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                folders[node.name].add(path.parent.relative_to(ROOT).as_posix())
    assert {name for name, found in folders.items() if len(found) > 1} == set(SHARED)
