"""A variant reads like a textbook: one file, few kernels behind it, and kernels that know no variant."""

import ast
from pathlib import Path

import pytest

import xformer.attention

PACKAGE, ROOT = "xformer.attention.", Path(xformer.attention.__file__).parent
VARIANTS = sorted(path for path in ROOT.glob("*.py") if path.name not in ("__init__.py", "base.py"))
KERNELS = sorted(path for path in ROOT.glob("kernels/**/*.py") if path.name != "__init__.py")


def imported(path: Path) -> set[Path]:
    """The modules of `xformer.attention` that a file imports, wherever in it, without base.py and packages."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    inside = [name.removeprefix(PACKAGE).split(".") for name in names if name.startswith(PACKAGE)]
    return {path for name in inside if (path := ROOT.joinpath(*name).with_suffix(".py")).exists()} - {ROOT / "base.py"}


def to_read(name: str) -> set[Path]:
    """A variant's file and all of `xformer.attention` that it imports, directly or not."""
    found, left = set[Path](), {ROOT / f"{name}.py"}
    while left:
        found |= left
        left = {further for path in left for further in imported(path)} - found
    return found


def test_imports_are_found() -> None:
    assert ROOT / "kernels" / "dense" / "eager.py" in imported(ROOT / "additive.py")
    assert len(VARIANTS) >= 8
    assert len(KERNELS) >= 5


def test_attention_is_the_seam_and_one_file_for_each_variant() -> None:
    options = {path.stem for path in (ROOT.parent / "conf" / "attention").glob("*.yaml")}
    assert {path.stem for path in ROOT.glob("*.py")} - {"__init__", "base", "mixer"} <= options


@pytest.mark.parametrize(("name", "files"), [("sparse", 5), ("performer", 4), ("linformer", 1)])
def test_a_variant_takes_few_files_to_read(name: str, files: int) -> None:
    paths = to_read(name)
    assert len(paths) <= files, sorted(str(path.relative_to(ROOT)) for path in paths)


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_kernel_knows_no_variant(path: Path) -> None:
    assert not imported(path) & set(VARIANTS)
