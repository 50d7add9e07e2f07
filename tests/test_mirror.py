"""A source `xformer/a/b.py` has its test `tests/a/test_b.py`, or stands below with the test that covers it.

Tests of no one source lie in `tests/` itself, in `contracts` (what every variant and scheme must show), in `parity`
(against other people's models) or in `killed` (runs that are struck at any moment).
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COVERED = {
    "commands/reproduce.py": "studies/test_reproduce.py",
    "attention/mixer.py": "contracts/test_mixer.py",
    "config/identity.py": "studies/test_grouping.py",
    "core/capability.py": "contracts/test_attention.py",
    "layers/initialise.py": "position/test_base.py",
    "loggers/base.py": "training/test_run_record.py",
    "studies/repeat.py": "studies/test_reproduce.py",
    "commands/gallery.py": "studies/test_gallery.py",
    "studies/figure_panels.py": "studies/test_figures.py",
    "studies/figure_style.py": "studies/test_figures.py",
    "studies/figure_svg.py": "studies/test_report_page.py",
    "studies/means_figure.py": "studies/test_gallery.py",
    "studies/page_origin.py": "studies/test_report_page.py",
    "studies/page_table.py": "studies/test_report_page.py",
    "studies/scaling_figure.py": "studies/test_figures.py",
    "studies/trivial_lines.py": "studies/test_figures.py",
    "studies/tuning_figure.py": "studies/test_trials.py",
    "studies/output_formats.py": "studies/test_comparison.py",
    "studies/record.py": "studies/test_reproduce.py",
    "studies/table.py": "studies/test_comparison.py",
}
"""What has no test of its own name, and the test that covers it."""
SCENARIOS = ("contracts", "parity", "killed")

SOURCES = sorted(
    path.relative_to(ROOT / "xformer").as_posix()
    for path in (ROOT / "xformer").rglob("*.py")
    if path.name != "__init__.py" and not {"template", "contracts"} & {*path.parts}  # tests, and a package with its own
)
TESTS = {path.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")}


def mirror(source: str) -> str:
    """Where a source's test lies."""
    path = Path(source)
    return path.with_name(f"test_{path.name}").as_posix()


def imported(test: str) -> set[str]:
    """The modules that a test imports, and what it imports from them, by dotted name."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / "tests" / test).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("source", [source for source in SOURCES])
def test_a_source_has_its_test_or_is_listed(source: str) -> None:
    assert (mirror(source) in TESTS) != (source in COVERED), f"write tests/{mirror(source)}, or list it; not both"


@pytest.mark.parametrize(("source", "test"), COVERED.items(), ids=COVERED)
def test_the_test_that_a_source_is_listed_with_imports_it(source: str, test: str) -> None:
    assert source in SOURCES
    assert test in TESTS
    assert f"xformer.{source.removesuffix('.py').replace('/', '.')}" in imported(test)


@pytest.mark.parametrize("test", sorted(test for test in TESTS if "/" in test and not test.startswith(SCENARIOS)))
def test_a_test_in_a_folder_is_that_of_a_source(test: str) -> None:
    assert test in {mirror(source) for source in SOURCES}, "name it after its source, or let it lie in tests/ itself"
