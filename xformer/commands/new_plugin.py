"""Create a plugin: a package for your own variants, with an attention, a token mixer, their options and tests."""

import argparse
import keyword
from importlib.util import find_spec
from pathlib import Path

TEMPLATE = Path(__file__).parents[1] / "template"
"""The template package, in which the names `myplugin` and `MyPlugin` are replaced."""


def main() -> None:
    """Write the package into a folder of its name, and print the next steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", metavar="NAME", help="name of the package, as Python imports it")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="where to write it (default: ./NAME)")
    arguments = parser.parse_args()
    directory = arguments.directory or Path(arguments.name)
    refuse_name(arguments.name)
    for path in write_plugin(arguments.name, directory):
        print(path)
    print(f"next       pip install -e {directory} && xformer train attention={arguments.name}")


def refuse_name(name: str) -> None:
    """Refuse a name that is not valid for a plugin.

    Raises:
        ConfigError: it is not an identifier, or a package or an option already has that name.
    """
    from xformer.config.groups import groups
    from xformer.errors import ConfigError

    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise ConfigError(f"{name} is not the name of a package: use small letters, digits and _, such as my_variants.")
    if find_spec(name) is not None:
        raise ConfigError(f"{name} is the name of an installed package: choose another.")
    for option in sorted(file.stem.replace("myplugin", name) for file in TEMPLATE.rglob("conf/attention/*.yaml")):
        if option in groups()["attention"]:
            raise ConfigError(f"attention={option} already exists as an option: choose another name.")


def write_plugin(name: str, directory: Path) -> list[Path]:
    """Write the template under another name.

    Returns:
        The files.

    Raises:
        ConfigError: the directory holds something, or cannot be written.
    """
    from xformer.errors import ConfigError

    made = "".join(part.capitalize() for part in name.split("_"))
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
