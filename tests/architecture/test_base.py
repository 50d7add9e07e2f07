"""What is known of an architecture from its class alone."""

from typing import ClassVar

import pytest

from xformer.architecture.base import Architecture
from xformer.architecture.slot import Slot
from xformer.config.compatibility import option_classes


def test_its_position_schemes_are_those_of_its_slots_each_once() -> None:
    class Several(Architecture):
        causal = False
        slots: ClassVar[dict[str, Slot]] = {
            "attention": Slot("first"),
            "second_attention": Slot("second"),
            "cross_attention": Slot("cross", position=None),
            "third_attention": Slot("third", position="third_position"),
        }

    assert Several.positions() == {"position", "third_position"}


@pytest.mark.parametrize(("name", "architecture"), [*option_classes("architecture")])
def test_every_option_says_what_tasks_and_the_compatibility_check_ask(name: str, architecture: type) -> None:
    assert issubclass(architecture, Architecture)
    assert isinstance(architecture.causal, bool), name
    assert isinstance(architecture.transduces, bool), name
    assert "attention" in architecture.slots, name
