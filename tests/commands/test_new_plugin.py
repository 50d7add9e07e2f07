"""`xformer new-plugin`: what it writes is a package, and a name that cannot be one is refused."""

from pathlib import Path

import pytest

from tests.conftest import Command
from xformer.commands.new_plugin import refuse_name, write_plugin
from xformer.config.compose import compose_config
from xformer.config.plugins import name_plugins

FILES = {
    "README.md", "pyproject.toml", "my_trial/__init__.py", "my_trial/attention.py",
    "my_trial/conv.py", "my_trial/conf/attention/my_trial.yaml", "my_trial/conf/attention/my_trial_conv.yaml",
    "my_trial/contracts.yaml", "tests/test_my_trial.py", "tests/test_my_trial_conv.py",
}  # fmt: skip

NOT_NAMES = ("1st", "My", "My-Own", "a b", "ünï", "_a", "a_", "a__b", "__init__", "", "a.b", "tests/a")


def test_it_writes_a_package_of_that_name(xformer: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, shown, _ = xformer("new-plugin", "my_trial")
    assert code == 0
    assert {file.relative_to("my_trial").as_posix() for file in Path("my_trial").rglob("*") if file.is_file()} == FILES
    assert "xformer train attention=my_trial" in shown
    assert "class MyTrial(" in Path("my_trial/my_trial/attention.py").read_text()
    assert "class MyTrialConv(" in Path("my_trial/my_trial/conv.py").read_text()
    for file in Path("my_trial").rglob("*"):
        assert "myplugin" not in file.name
        assert file.is_dir() or "myplugin" not in file.read_text().lower().replace("my_plugin", "")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        *((name, f"{name!r} is not a name for a plugin") for name in NOT_NAMES),
        *((name, f"{name} is a keyword of Python") for name in ("class", "async")),
        *((name, f"{name} is a value and not a name") for name in ("true", "null", "yes", "off", "nan")),
        *((name, f"{name} is the name of an installed package") for name in ("torch", "json", "winreg", "pyyaml")),
        ("full", "attention=full already exists as an option"),
        ("none", "none makes the class None, a name that Python already uses"),
        ("big_bird", "big_bird makes the class BigBird, a name that xformer already uses"),
        ("multi_head_attention", "makes the class MultiHeadAttention, a name that xformer already uses"),
        ("tensor", "tensor makes the class Tensor, a name that the template already uses"),
        ("there", "there already exists"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused(
    name: str, sentence: str, xformer: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    Path("there/file").touch()
    code, _, said = xformer("new-plugin", name)
    assert code == 1
    assert sentence in said
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_name_that_is_accepted_is_written_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("match", "a", "x2_y3", "true_false"):
        refuse_name(name)
        write_plugin(name, tmp_path / name)
        for file in (tmp_path / name).rglob("*.py"):
            compile(file.read_text(), str(file), "exec")
        monkeypatch.syspath_prepend(str(tmp_path / name))
        name_plugins([f"plugins=[{name}]"])
        assert compose_config([f"attention={name}"]).attention.temperature == 10


def test_the_printed_command_is_one_for_the_shell(
    xformer: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, shown, _ = xformer("new-plugin", "my_trial", "--directory", "a folder")
    assert "pip install -e 'a folder' &&" in shown
