"""What comes next is said in the words that the user typed."""

import shlex

import pytest

from tests.conftest import Command
from xformer.core.program import add_typed_plugins, started_as, train_command, with_plugins


def test_a_clone_has_its_script_until_the_console_script_is_typed() -> None:
    assert train_command() == "python train.py"
    started_as("xformer train")
    assert train_command() == "xformer train"


def test_the_console_script_says_so(xformer: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, said = xformer("train", "seed=1,2")
    assert code == 1
    assert "xformer train -m seed=1,2 runs each of them" in said


def test_a_command_carries_the_plugins_that_were_typed() -> None:
    assert with_plugins("xformer record") == "xformer record"
    for packages in (["one"], [], ["two", "one"]):
        add_typed_plugins(packages)
    assert shlex.split(with_plugins("xformer record")) == ["xformer", "record", "plugins=[one,two]"]
    assert shlex.split(train_command()) == ["python", "train.py", "plugins=[one,two]"]
