"""Create a plugin: a package for your own variants, with an attention, a token mixer, their options and tests."""

import argparse
import ast
import builtins
import keyword
import re
import shlex
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

TEMPLATE = Path(__file__).parents[1] / "template"
"""The template package, in which the names `myplugin` and `MyPlugin` are replaced."""
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_OTHER = "choose another name, such as my_variants."


def main() -> None:
    """Write the package into a folder of its name, and print the next steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", metavar="NAME", help="name of the package, such as my_variants")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="where to write it (default: ./NAME)")
    arguments = parser.parse_args()
    directory = arguments.directory or Path(arguments.name)
    refuse_name(arguments.name)
    for path in write_plugin(arguments.name, directory):
        print(path)
    print(f"next       pip install -e {shlex.quote(str(directory))} && xformer train attention={arguments.name}")


def refuse_name(name: str) -> None:
    """Refuse a name with which the package, its options or its classes would not work.

    Raises:
        ConfigError: it is not a package name of small letters, Python or YAML reads it as something else, or a package,
            an option or a class already has that name.
    """
    import yaml  # type: ignore[import-untyped]
    from hydra.core.override_parser.overrides_parser import OverridesParser

    import xformer
    from xformer.config.groups import groups
    from xformer.errors import ConfigError

    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not a name for a plugin: use words of the letters a-z and digits with _ between, "
            "beginning with a letter, such as my_variants."
        )
    if keyword.iskeyword(name):
        raise ConfigError(f"{name} is a keyword of Python: {_OTHER}")
    read = [yaml.safe_load(name), OverridesParser.create().parse_override(f"attention={name}").value()]
    if read != [name, name]:
        raise ConfigError(f"{name} is a value and not a name in YAML or on the command line: {_OTHER}")
    if name in sys.stdlib_module_names or find_spec(name) is not None or _is_distribution(name):
        raise ConfigError(f"{name} is the name of an installed package: {_OTHER}")
    if any(path.name == name for path in TEMPLATE.iterdir()):
        raise ConfigError(f"{name} is the name of another folder of the plugin: {_OTHER}")
    for option in sorted(file.stem.replace("myplugin", name) for file in TEMPLATE.rglob("conf/attention/*.yaml")):
        if option in groups()["attention"]:
            raise ConfigError(f"attention={option} already exists as an option: {_OTHER}")
    existing = {**dict.fromkeys(_names_in_template(), "the template"), **dict.fromkeys(dir(builtins), "Python")}
    existing |= dict.fromkeys(dir(xformer), "xformer")
    for kind in (_class_name(name), f"{_class_name(name)}Conv"):
        if kind in existing:
            raise ConfigError(f"{name} makes the class {kind}, a name that {existing[kind]} already uses: {_OTHER}")


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _is_distribution(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _names_in_template() -> set[str]:
    """The names that the template's modules import, such as `Tensor`: a class of that name would replace them."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in TEMPLATE.rglob("*.py")]
    imports = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names if "MyPlugin" not in alias.name}


def write_plugin(name: str, directory: Path) -> list[Path]:
    """Write the template under another name.

    Returns:
        The files.

    Raises:
        ConfigError: the directory holds something, or cannot be written.
    """
    from xformer.errors import ConfigError

    made = _class_name(name)
    sources = sorted(path for path in TEMPLATE.rglob("*") if path.is_file() and not {"__pycache__"} & {*path.parts})
    written = []
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise ConfigError(f"{directory} already exists: choose another place with --directory.")
        for source in sources:
            path = directory / source.relative_to(TEMPLATE).as_posix().replace("myplugin", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = source.read_text(encoding="utf-8").replace("myplugin", name).replace("MyPlugin", made)
            path.write_text(text, encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be written: {error.strerror}; use another with --directory.") from error
    return written
