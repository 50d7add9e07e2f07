"""`xformer new-plugin`: what it writes is a package, and a name that cannot be one is refused."""

from pathlib import Path

import pytest

from tests.conftest import Command

FILES = {
    "README.md", "pyproject.toml", "my_trial/__init__.py", "my_trial/attention.py",
    "my_trial/conv.py", "my_trial/conf/attention/my_trial.yaml", "my_trial/conf/attention/my_trial_conv.yaml",
    "my_trial/contracts.yaml", "tests/test_my_trial.py", "tests/test_my_trial_conv.py",
}  # fmt: skip


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
        ("1st", "1st is not the name of a package"),
        ("class", "class is not the name of a package"),
        ("My-Own", "My-Own is not the name of a package"),
        ("torch", "torch is the name of an installed package"),
        ("full", "attention=full already exists as an option"),
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
