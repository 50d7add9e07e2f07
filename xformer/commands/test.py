"""Run the contract tests on the attentions and position schemes of a plugin."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

CONTRACTS = Path(__file__).parents[1] / "contracts"
"""The tests in `tests/contracts`, which the installed package contains too."""
_SETTINGS = """[pytest]
pythonpath = .
markers =
    slow: minutes, not seconds
    gpu: needs a CUDA device
addopts = --import-mode=importlib -p no:cacheprovider -m "not slow and not gpu"
"""


def main() -> None:
    """Run the contract tests in a separate process; the exit code is pytest's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", metavar="PACKAGE", help="a plugin, as Python imports it")
    rest = parser.add_argument("pytest", nargs=argparse.REMAINDER, help="further arguments for pytest, such as -x")
    rest.required = False  # Python 3.11 lists it as missing otherwise
    arguments = parser.parse_args()
    names = options_of(arguments.package)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(CONTRACTS, Path(folder) / "tests" / "contracts", ignore=shutil.ignore_patterns("__pycache__"))
        (Path(folder) / "pytest.ini").write_text(_SETTINGS, encoding="utf-8")
        pytest = [sys.executable, "-m", "pytest", "-q", "-k", " or ".join(names), *arguments.pytest]
        sys.exit(subprocess.call(pytest, cwd=folder))


def options_of(package: str) -> list[str]:
    """The attentions and position schemes of a plugin; the plugin is named for this process.

    Raises:
        ConfigError: the package is not a plugin, has no attention or position scheme, or pytest is not installed.
    """
    from xformer.config.plugins import name_plugins, plugins
    from xformer.errors import ConfigError

    name_plugins([f"plugins=[{package}]"])
    found = next(plugin for plugin in plugins() if plugin.package == package)
    names = [file.stem for group in ("attention", "position") for file in sorted((found.conf / group).glob("*.yaml"))]
    if not names:
        raise ConfigError(f"{package} has no option in conf/attention/ or conf/position/, so there is nothing to test.")
    if find_spec("pytest") is None:
        raise ConfigError("The contract tests need pytest, which is not installed: pip install 'xformer-lab[test]'.")
    return names
