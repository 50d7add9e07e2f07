"""What comes next is said in the words that the user typed."""

import pytest

from tests.conftest import Command
from xformer.core.program import started_as, train_command


def test_a_clone_has_its_script_until_the_console_script_is_typed() -> None:
    assert train_command() == "python train.py"
    started_as("xformer train")
    assert train_command() == "xformer train"


def test_the_console_script_says_so(xformer: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, said = xformer("train", "seed=1,2")
    assert code == 1
    assert "xformer train -m seed=1,2 runs each of them" in said
