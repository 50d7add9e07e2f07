"""What is required, and what is said where it does not hold."""

import pytest

from tests.audit.made import subject
from xformer.audit.examine import examine
from xformer.audit.require import check, required
from xformer.errors import ConfigError, RunError


def test_names() -> None:
    assert required("") == ()
    assert required("causal, padding") == ("causal", "padding-right", "padding-left")
    with pytest.raises(
        ConfigError, match=r"--require casual is not a contract; use one of padding, causal, padding-right"
    ):
        required("casual")


def test_what_does_not_hold_or_was_not_tested_fails() -> None:
    card = examine(subject("Both"), seeds=1, longest=0)
    check(card, ("padding-right", "rows"))
    with pytest.raises(RunError, match=r"Both does not satisfy `causal`, which --require demands: no, output 0 of 2"):
        check(card, ("rows", "causal"))
    with pytest.raises(RunError, match=r"`step`, which --require demands: untested"):
        check(card, ("step",))
