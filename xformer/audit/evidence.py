"""One measurement of a module: a difference that should be zero, and the difference that rounding can explain.

The rounding of a module is measured, because a module in float64 may compute in float32 inside. For a smooth function
f(x + h) + f(x - h) - 2 f(x) = O(h^2), so for small h this sum is dominated by rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xformer.audit.subject import Module, Subject

ROUNDINGS = 100
"""Differences up to this many measured roundings are attributed to rounding, such as another order of summation."""
_STEP = {torch.float64: 2.0**-26, torch.float32: 2.0**-12}


@dataclass(frozen=True)
class Evidence:
    """The result of a measurement.

    Attributes:
        error: the largest difference, relative to the largest output; infinite if an output is not finite.
        tolerance: the difference that rounding can explain.
        lines: lines of Python that show it, after those that make the module.
        says: a description of the difference.
    """

    error: float
    tolerance: float
    lines: tuple[str, ...] = ()
    says: str = ""

    @property
    def fails(self) -> bool:
        """Whether the difference exceeds the tolerance."""
        return not self.error <= self.tolerance


Measure = Callable[[Subject, int, int, int], Evidence]
"""(subject, length, batch, seed) -> its evidence."""


class _Narrowest(TorchDispatchMode):
    """Finds operations that compute in a narrower type than the inputs; a mask of zeros is exact in any type."""

    exact = ("empty", "zeros", "ones", "full", "arange", "tril", "triu", "masked_fill", "view", "expand", "slice",
             "unsqueeze", "detach", "alias", "select", "cat", "permute", "transpose", "clone", "lift")  # fmt: skip

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.eps = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and record the type of its result."""
        made = func(*args, **(kwargs or {}))
        if not func._schema.name.removeprefix("aten::").startswith(self.exact):
            for tensor in tree_leaves(made):
                if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.numel() > 1:
                    self.eps = max(self.eps, torch.finfo(tensor.dtype).eps)
        return made


def computes_in(module: Module, x: Tensor) -> float:
    """The rounding of the narrowest type that a module computes in, for instance for the angles of positions."""
    narrowest = _Narrowest()
    with torch.no_grad(), narrowest:
        module(x)
    return narrowest.eps


def rounding(module: Module, x: Tensor, valid: Tensor | None = None) -> float:
    """The measured rounding error of a module's outputs, relative to the largest output."""
    h = _STEP[module.dtype]
    generator = torch.Generator().manual_seed(module.seed)
    way = h * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)
    with torch.no_grad():
        y, above, below = (module(point, valid).double() for point in (x, x + way, x - way))
    if valid is not None:
        y, above, below = y[valid], above[valid], below[valid]
    return max(torch.finfo(module.dtype).eps, relative(above + below - 2 * y, y))


def tolerance_at(module: Module, x: Tensor, valid: Tensor | None = None, *, moved: bool = False) -> float:
    """The relative difference that rounding can explain.

    Args:
        module: the module to measure.
        x: its inputs.
        valid: False at padding.
        moved: whether the comparison moves tokens to other positions or among other tokens, which also changes the
            rounding of terms that depend only on positions.
    """
    least = computes_in(module, x) if moved else 0.0
    found = ROUNDINGS * max(least, rounding(module, x, valid))
    return found if found == found and found < 1e-3 else 1e-3


def relative(difference: Tensor, of: Tensor) -> float:
    """The largest difference, relative to the largest value; infinite if any value is not finite."""
    if not difference.numel():
        return 0.0
    if not torch.isfinite(difference).all():
        return float("inf")
    return float(difference.abs().max() / of[torch.isfinite(of)].abs().max().clamp(min=1e-300))


def input_code(module: Module, batch: int, length: int, shift: int = 0, name: str = "x") -> str:
    """The line of Python that draws the same inputs as `Module.draw`."""
    generator = f"torch.Generator().manual_seed({1000 * shift + module.seed})"
    line = f"{name} = torch.randn({batch}, {length}, {module.width}, generator={generator}, dtype=torch.float64)"
    return line if module.dtype == torch.float64 else f"{line}.to({module.dtype})"


def smallest(
    measure: Measure, subject: Subject, length: int, batches: tuple[int, ...], seeds: int
) -> tuple[int, int, int]:
    """The shortest length, then the smallest batch, then the first seed at which a measurement fails.

    Args:
        measure: fails at `length` for the last of `batches` and one of the seeds.
        subject: the module to measure.
        length: the longest length to try.
        batches: batch sizes to try.
        seeds: the number of seeds.
    """
    known = [n for n in subject.lengths if n <= length]
    at = next((n for n in known if _fails(measure, subject, n, batches, seeds)), length)
    below = max((n for n in known if n < at), default=0)  # not all lengths between were tried
    between = (n for n in range(below + 1, at) if subject.takes(n))
    at = next((n for n in between if _fails(measure, subject, n, batches, seeds)), at)
    found = _fails(measure, subject, at, batches, seeds)
    if found is None:
        raise AssertionError("the measurement failed before but does not fail now")
    return at, *found


def _fails(measure: Measure, subject: Subject, n: int, batches: tuple[int, ...], seeds: int) -> tuple[int, int] | None:
    """The smallest batch and the first seed for which the measurement fails at a length."""
    for batch in batches:
        for seed in range(seeds):
            try:
                if measure(subject, n, batch, seed).fails:
                    return batch, seed
            except Exception:  # shorter than it takes, or than can be measured
                continue
    return None


class Unmeasurable(Exception):
    """Raised if a measurement needs an input that the module does not accept, such as another length."""
