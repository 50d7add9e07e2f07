"""The checks of the tests refuse what jaxtyping's own refuse, and every function of xformer is under them."""

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from tests.checked_calls import _jaxtyped, jaxtyped
from xformer.core.mask import Mask
from xformer.position.rotary import Rotary

OURS, JAXTYPING = jaxtyped(typechecker=beartype), _jaxtyped(typechecker=beartype)
both = pytest.mark.parametrize("decorate", [OURS, JAXTYPING], ids=["ours", "jaxtyping"])


def product(x: Float[Tensor, "b n"], y: Float[Tensor, "n m"] | None = None, *, rows: int = 0) -> Float[Tensor, "b m"]:
    return x[:rows] if y is None else x @ y


def plain(a: int, *rest: str, scale: float = 1.0) -> list[int]:
    return [a] if scale else ["a"]  # type: ignore[list-item]


@both
@pytest.mark.parametrize(
    ("sizes", "fits"), [(((2, 3), (3, 4)), True), (((2, 3), (3,)), False), (((2, 3, 1), (3, 4)), False)]
)
def test_shapes_of_arguments(decorate: Any, sizes: tuple[tuple[int, ...], ...], fits: bool) -> None:
    x, y = map(torch.ones, sizes)
    if fits:
        torch.testing.assert_close(decorate(product)(x, y), x @ y)
    else:
        with pytest.raises(TypeCheckError):
            decorate(product)(x, y)


@both
def test_an_axis_has_one_size_in_arguments_and_result(decorate: Any) -> None:
    def mixed(x: Float[Tensor, "b n"], y: Float[Tensor, "b n"]) -> None: ...

    with pytest.raises(TypeCheckError):
        decorate(mixed)(torch.ones(2, 3), torch.ones(2, 4))
    decorate(mixed)(torch.ones(2, 3), torch.ones(2, 3))
    decorate(mixed)(torch.ones(4, 3), torch.ones(4, 3))  # another call, another size
    with pytest.raises(TypeCheckError):
        decorate(product)(torch.ones(2, 3), rows=1)  # (1, m) is not (b, m)


@both
@pytest.mark.parametrize(
    ("arguments", "options"), [(("1",), {}), ((1, 2), {}), ((1,), {"scale": "a"}), ((1,), {"scale": 0.0})]
)
def test_what_has_no_shape(decorate: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    assert decorate(plain)(1, "b", scale=2.0) == [1]
    with pytest.raises(TypeCheckError):
        decorate(plain)(*arguments, **options)


@both
def test_methods_and_dataclasses(decorate: Any) -> None:
    class Holder:
        @decorate
        @classmethod
        def of(cls, x: Float[Tensor, "b"]) -> object:
            return cls()

        @decorate
        @staticmethod
        def size(x: Float[Tensor, "b"]) -> int:
            return len(x)

        @decorate
        @property
        def ours(self) -> int:
            return "no"  # type: ignore[return-value]

    @decorate
    @dataclass
    class Pair:
        x: Float[Tensor, "b n"]
        y: Float[Tensor, "b n"]

    assert isinstance(Holder.of(torch.ones(2)), Holder)
    assert Holder.size(torch.ones(2)) == 2
    Pair(torch.ones(2, 3), torch.ones(2, 3))
    refused: list[Callable[[], object]] = [
        lambda: Holder.of(torch.ones(2, 2)),
        lambda: Holder.size(torch.ones(2, 2)),
        lambda: Holder().ours,
        lambda: Pair(torch.ones(2, 3), torch.ones(2, 4)),
    ]
    for call in refused:
        with pytest.raises(TypeCheckError):
            call()


@both
def test_an_inner_function_calls_what_it_is_defined_with(decorate: Any) -> None:
    def outer(factor: float, kind: type) -> Callable[..., Any]:
        def inner(x: kind, add: float = factor) -> Float[Tensor, "n"]:  # type: ignore[valid-type]
            return x * factor + add  # type: ignore[no-any-return, attr-defined]

        return decorate(inner)  # type: ignore[no-any-return]

    x, vector, matrix = torch.ones(3), Float[Tensor, "n"], Float[Tensor, "n n"]
    made = [outer(factor, vector) for factor in (1.0, 2.0, 3.0)]
    assert [call(x).tolist() for call in made] == [[2.0] * 3, [4.0] * 3, [6.0] * 3]
    for call in [*made, outer(1.0, matrix)]:
        with pytest.raises(TypeCheckError):
            call(torch.ones(3, 3))
    with pytest.raises(TypeCheckError):
        outer(1.0, matrix)(x)


def test_what_an_inner_function_closes_over_is_not_kept() -> None:
    def outer() -> tuple[weakref.ref[Tensor], Callable[..., Any]]:
        held = torch.ones(2)

        def inner(x: Float[Tensor, "n"]) -> Tensor:
            return x + held

        return weakref.ref(held), OURS(inner)

    reference, inner = outer()
    assert inner(torch.ones(2)).tolist() == [2.0, 2.0]
    del inner
    gc.collect()
    assert reference() is None


def test_a_generator_and_a_context() -> None:
    @contextmanager
    @OURS
    def opened(x: Float[Tensor, "b"]) -> Iterator[int]:
        yield len(x)

    with opened(torch.ones(2)) as size:
        assert size == 2
    with pytest.raises(TypeCheckError):
        opened(torch.ones(2, 2))


def test_xformer_is_under_them() -> None:
    with pytest.raises(TypeCheckError):
        Mask.consecutive("0", 4, causal=True)  # type: ignore[arg-type]
    for method in (Mask.consecutive, Rotary.__init__, Rotary.rotate):
        assert hasattr(method, "__wrapped__")
