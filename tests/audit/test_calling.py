"""The lines that call a module are those that are run, and those of a snippet."""

import pytest
import torch

from tests.audit.made import subject
from tests.audit.planted import Right
from xformer.audit.calling import CAUSAL_FORMS, LAYOUTS, MASK_FORMS, Calling, StateArgument


def test_a_mask_is_passed_by_its_convention() -> None:
    valid = torch.tensor([[True, False]])
    x = torch.zeros(1, 2, 4)
    seen = {}

    def module(x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        seen["mask"] = mask
        return x

    for form in ("True = ignore", "True = keep", "1 = keep", "lengths"):
        Calling(mask=("mask", form)).functions(None)[0](module, x, valid)
        expected = {"True = ignore": ~valid, "True = keep": valid, "1 = keep": valid.long(), "lengths": valid.sum(-1)}
        torch.testing.assert_close(seen["mask"], expected[form])
        Calling(mask=("mask", form)).functions(None)[0](module, x)
        assert seen["mask"] is None
    Calling(mask=("mask", "4-D, added to the scores")).functions(None)[0](module, x, valid)
    lowest = torch.finfo(torch.float32).min
    torch.testing.assert_close(seen["mask"], torch.tensor([[[[0.0, lowest], [0.0, lowest]]]]))


def test_a_mask_of_scores_holds_causality_where_it_has_to() -> None:
    x, seen = torch.zeros(1, 2, 4), []

    def module(x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        seen.append(mask)
        return x

    form = "4-D, True = keep"
    Calling(mask=("mask", form), causal=("mask", "within the padding mask")).functions(None)[0](module, x)
    torch.testing.assert_close(seen[-1], torch.tensor([[[[True, False], [True, True]]]]))
    optional = Calling(mask=("mask", form), causal=("mask", "within the padding mask, where there is one"))
    optional.functions(None)[0](module, x)
    assert seen[-1] is None
    optional.functions(None)[0](module, x, torch.tensor([[False, True]]))
    torch.testing.assert_close(seen[-1], torch.tensor([[[[False, False], [False, True]]]]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_undone(layout: str) -> None:
    x = torch.randn(2, 3, 8)
    mix, _ = Calling(layout=layout).functions(None)
    torch.testing.assert_close(mix(lambda y: y, x), x)  # type: ignore[arg-type]


def test_a_state_is_handed_on() -> None:
    state = StateArgument("cache", flags=("return_cache=True",), found_at="[1]")
    mix, step = Calling(state=state).functions(None)
    assert step is not None
    module, x = Right().double(), torch.randn(2, 4, 16, dtype=torch.float64)
    remembered, outputs = None, []
    for at in range(4):
        y, remembered = step(module, x[:, at : at + 1], remembered, at)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1), mix(module, x))


def test_what_is_printed_is_what_is_run() -> None:
    made = subject("Right")
    space: dict[str, object] = {}
    exec("\n".join(made.source(3)), space)
    module = made.at(3)
    x = module.draw(2, 5)
    torch.testing.assert_close(space["mix"](space["module"], x), module(x), rtol=0, atol=0)  # type: ignore[operator]


def test_every_form_is_python() -> None:
    for form in (*MASK_FORMS.values(), *filter(None, CAUSAL_FORMS.values())):
        compile(form, "form", "eval")
