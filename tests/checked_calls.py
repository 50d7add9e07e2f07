"""Argument and shape checks of every function of xformer, in the tests alone, and cheaper than `jaxtyping.jaxtyped`.

`--jaxtyping-packages` decorates every function with `jaxtyped`, which binds the arguments of each call, has them
checked twice so that its message can name the argument, and makes both checks anew whenever an inner function is
defined: a third of all that the tests compute. `checked` has each call checked once, by the same type checker and
within the same memory of axis sizes, and makes the check of an inner function once.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from types import CellType, CodeType, FunctionType
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import TypeCheckError
from jaxtyping._storage import pop_shape_memo, push_shape_memo, shape_str

Function = Callable[..., Any]

_jaxtyped = jaxtyping.jaxtyped
_check = beartype(conf=BeartypeConf(violation_type=TypeCheckError))
_checks: dict[CodeType, tuple[dict[str, Any], FunctionType, bool]] = {}
"""By the code of an inner function: its annotations, its check, and whether it needs the memory of axis sizes."""


def jaxtyped(*, typechecker: Any) -> Callable[[Any], Any]:
    """A decorator in place of `jaxtyping.jaxtyped`, which is left generators, coroutines and properties."""
    slow = _jaxtyped(typechecker=typechecker)

    def decorate(decorated: Any) -> Any:
        if inspect.isclass(decorated):
            if dataclasses.is_dataclass(decorated) and not hasattr(decorated.__init__, "__wrapped__"):
                decorated.__init__ = checked(decorated.__init__)
            return decorated
        if isinstance(decorated, classmethod | staticmethod):
            return type(decorated)(decorate(decorated.__func__))
        if isinstance(decorated, FunctionType) and not (
            inspect.isgeneratorfunction(decorated) or inspect.iscoroutinefunction(decorated)
        ):
            return checked(decorated)
        return slow(decorated)

    return decorate


def checked(function: FunctionType) -> Function:
    """The function, with arguments and result of each call checked, and axes of one name of one size in each call."""
    check, has_shapes = _check_of(function)
    if not has_shapes:
        return check

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        sizes = push_shape_memo({})
        try:
            return check(*args, **kwargs)
        except TypeCheckError as violation:
            if not hasattr(violation, "__notes__"):
                violation.add_note(shape_str(sizes))
            raise
        finally:
            pop_shape_memo()

    return call


def _check_of(function: FunctionType) -> tuple[Function, bool]:
    """beartype's wrapper of the function, and whether its annotations name shapes."""
    hints = function.__annotations__
    if "<locals>" not in function.__qualname__:
        return _check(function), _has_shapes(hints)
    known = _checks.get(function.__code__)
    if known is None or known[0] != hints:
        known = _checks[function.__code__] = hints, _check(_hollow(function)), _has_shapes(hints)
    _, wrapper, has_shapes = known
    if wrapper.__code__ is function.__code__:  # there is nothing to check
        return function, has_shapes
    if "__beartype_func" not in (wrapper.__kwdefaults__ or {}):
        return _check(function), has_shapes
    # The same wrapper around this function: beartype's holds what it calls in the default of a keyword.
    again = FunctionType(wrapper.__code__, wrapper.__globals__, wrapper.__name__, wrapper.__defaults__)
    again.__kwdefaults__ = wrapper.__kwdefaults__ | {"__beartype_func": function}
    return functools.update_wrapper(again, function), has_shapes


def _hollow(function: FunctionType) -> FunctionType:
    """The same signature without what the function closes over, which would be kept for as long as the check is."""
    cells = tuple(CellType() for _ in function.__closure__ or ())
    hollow = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, cells)
    functools.update_wrapper(hollow, function)
    del hollow.__wrapped__
    hollow.__kwdefaults__ = function.__kwdefaults__
    return hollow


def _has_shapes(hints: dict[str, Any]) -> bool:
    return not all(map(_has_no_shape, hints.values()))


def _has_no_shape(hint: Any) -> bool:
    if isinstance(hint, type) and not get_args(hint):
        return not issubclass(hint, jaxtyping.AbstractArray)
    if isinstance(hint, list):
        return all(map(_has_no_shape, hint))
    inside = get_args(hint)
    return hint in (None, Any, Ellipsis) or (bool(inside) and all(map(_has_no_shape, inside)))


# The import hook looks it up in each module of xformer, so this comes before the first.
jaxtyping.jaxtyped = jaxtyped
