"""Attributes that were renamed: the same initial values, and checkpoints of before and after open in each other."""

import copy
import hashlib
import io
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from xformer.layers.initialise import initialise
from xformer.layers.stable_names import keep_stable_names, stable_name, stable_parameters


class Scaled(nn.Module):
    """A parameter and a buffer of its own beside its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.zeros(2))
        self.register_buffer("count", torch.zeros(1))

    def reset_parameters(self) -> None:
        nn.init.normal_(self.scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.linear(x)


class Before(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.ModuleList([Scaled(), Scaled()])
        self.norm = nn.LayerNorm(2)


class ScaledAfter(nn.Module):
    stable_names: ClassVar = {"projection": "linear", "gain": "scale", "seen": "count"}

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(3, 2)
        self.gain = nn.Parameter(torch.zeros(2))
        self.register_buffer("seen", torch.zeros(1))

    def reset_parameters(self) -> None:
        nn.init.normal_(self.gain)


class After(nn.Module):
    """The same with every attribute renamed, two of them into each other's name."""

    stable_names: ClassVar = {"norm": "tower", "tower": "norm"}

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.ModuleList([ScaledAfter(), ScaledAfter()])
        self.tower = nn.LayerNorm(2)


def state(kind: type[nn.Module], seed: int = 0) -> dict[str, Tensor]:
    model = kind()
    keep_stable_names(model)
    initialise(model, seed)
    return model.state_dict()


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_a_renamed_attribute_leaves_initial_values_and_state_as_they_were() -> None:
    before, after = state(Before), state(After)
    assert equal(before, after)
    assert before["tower.0.linear.weight"].any()
    assert not torch.equal(before["tower.0.scale"], before["tower.1.scale"])
    assert not equal(before, state(Before, seed=1))
    assert not torch.equal(before["tower.0.linear.weight"], _plain(After, "norm.0.projection.weight"))


def _plain(kind: Any, name: str) -> Tensor:
    """The value where nothing is stated."""

    class Silent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.ModuleList([nn.ModuleDict({"projection": nn.Linear(3, 2)})])

    model = Silent()
    initialise(model, 0)
    return model.state_dict()[name]


def test_a_value_depends_on_the_seed_and_the_name_by_a_rule_that_stays() -> None:
    model = After()
    initialise(model, 7)
    torch.manual_seed(int.from_bytes(hashlib.sha256(b"7/tower.1.linear").digest()[:7], "big"))
    expected = nn.Linear(3, 2)
    assert torch.equal(model.norm[1].projection.weight, expected.weight)


@pytest.mark.parametrize(("wrote", "reads"), [(Before, After), (After, Before), (After, After)])
def test_a_state_opens_in_the_model_of_before_and_of_after(wrote: type[nn.Module], reads: type[nn.Module]) -> None:
    file, model = io.BytesIO(), reads()
    torch.save(state(wrote, seed=3), file)
    file.seek(0)
    keep_stable_names(model)
    copied = copy.deepcopy(model)
    for other in (model, copied):
        other.load_state_dict(torch.load(file, weights_only=True))
        file.seek(0)
        assert equal(other.state_dict(), state(wrote, seed=3))


def test_a_state_that_lacks_something_or_has_too_much_is_refused() -> None:
    model, content = After(), state(Before)
    keep_stable_names(model)
    del content["tower.1.scale"]
    with pytest.raises(RuntimeError, match=r"Missing key.*norm\.1\.gain"):
        model.load_state_dict(content)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*what\.is\.this"):
        model.load_state_dict({**state(Before), "what.is.this": torch.zeros(1)})


def test_parameters_are_named_as_in_the_state() -> None:
    model = After()
    assert set(stable_parameters(model)) == {name for name in state(Before) if not name.endswith("count")}
    assert stable_name(model, "norm.0.seen") == "tower.0.count"
