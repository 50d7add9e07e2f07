"""One measurement of a module: how far something that should be zero is from it, and how far rounding alone would be.

How exactly a module computes is measured and not guessed: a module in float64 may compute in float32 inside. A function
that is smooth gives f(x + h) + f(x - h) - 2 f(x) = O(h^2), so for small h what is left of that sum is rounding.
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
"""Differences of up to so many roundings, as measured, may be rounding: sums taken in another order."""
_STEP = {torch.float64: 2.0**-26, torch.float32: 2.0**-12}


@dataclass(frozen=True)
class Evidence:
    """What a measurement found.

    Attributes:
        error: the largest difference, relative to the largest output; infinite where one is no number.
        tolerance: what rounding may explain.
        lines: of Python that show it, after those that make the module.
        says: what differs, in words.
    """

    error: float
    tolerance: float
    lines: tuple[str, ...] = ()
    says: str = ""

    @property
    def fails(self) -> bool:
        """Whether the difference is more than rounding."""
        return not self.error <= self.tolerance


Measure = Callable[[Subject, int, int, int], Evidence]
"""(subject, length, batch, seed) -> what it found."""


class _Narrowest(TorchDispatchMode):
    """Looks for operations that compute in a narrower type than the inputs have; a mask of zeros is exact in any."""

    exact = ("empty", "zeros", "ones", "full", "arange", "tril", "triu", "masked_fill", "view", "expand", "slice",
             "unsqueeze", "detach", "alias", "select", "cat", "permute", "transpose", "clone", "lift")  # fmt: skip

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.eps = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and look at the type of what it makes."""
        made = func(*args, **(kwargs or {}))
        if not func._schema.name.removeprefix("aten::").startswith(self.exact):
            for tensor in tree_leaves(made):
                if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.numel() > 1:
                    self.eps = max(self.eps, torch.finfo(tensor.dtype).eps)
        return made


def computes_in(module: Module, x: Tensor) -> float:
    """The rounding of the narrowest type that a module computes in, as of positions that it turns into angles."""
    narrowest = _Narrowest()
    with torch.no_grad(), narrowest:
        module(x)
    return narrowest.eps


def rounding(module: Module, x: Tensor, valid: Tensor | None = None) -> float:
    """How inexactly a module computes its outputs from its inputs, relative to the largest."""
    h = _STEP[module.dtype]
    generator = torch.Generator().manual_seed(module.seed)
    way = h * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)
    with torch.no_grad():
        y, above, below = (module(point, valid).double() for point in (x, x + way, x - way))
    if valid is not None:
        y, above, below = y[valid], above[valid], below[valid]
    return max(torch.finfo(module.dtype).eps, relative(above + below - 2 * y, y))


def tolerance_at(module: Module, x: Tensor, valid: Tensor | None = None, *, moved: bool = False) -> float:
    """The relative difference that rounding may explain.

    Args:
        module: what is measured.
        x: its inputs.
        valid: True where a token is no padding.
        moved: whether tokens stand at other positions, or among others, in what is compared: what depends on the
            positions alone is then rounded otherwise, too.
    """
    least = computes_in(module, x) if moved else 0.0
    found = ROUNDINGS * max(least, rounding(module, x, valid))
    return found if found == found and found < 1e-3 else 1e-3


def relative(difference: Tensor, of: Tensor) -> float:
    """The largest difference, relative to the largest value; infinite where something is no number."""
    if not difference.numel():
        return 0.0
    if not torch.isfinite(difference).all():
        return float("inf")
    return float(difference.abs().max() / of[torch.isfinite(of)].abs().max().clamp(min=1e-300))


def input_code(module: Module, batch: int, length: int, shift: int = 0, name: str = "x") -> str:
    """The line that draws what `Module.draw` draws."""
    generator = f"torch.Generator().manual_seed({1000 * shift + module.seed})"
    line = f"{name} = torch.randn({batch}, {length}, {module.width}, generator={generator}, dtype=torch.float64)"
    return line if module.dtype == torch.float64 else f"{line}.to({module.dtype})"


def smallest(
    measure: Measure, subject: Subject, length: int, batches: tuple[int, ...], seeds: int
) -> tuple[int, int, int]:
    """The shortest length, then the smallest batch, then the first seed at which a measurement fails.

    Args:
        measure: fails at `length` for the last of `batches` and one of the seeds.
        subject: what is measured.
        length: the longest that is tried.
        batches: sizes that are tried.
        seeds: how many seeds.
    """
    known = [n for n in subject.lengths if n <= length]
    at = next((n for n in known if _fails(measure, subject, n, batches, seeds)), length)
    below = max((n for n in known if n < at), default=0)  # not all lengths between were tried
    between = (n for n in range(below + 1, at) if subject.takes(n))
    at = next((n for n in between if _fails(measure, subject, n, batches, seeds)), at)
    found = _fails(measure, subject, at, batches, seeds)
    if found is None:
        raise AssertionError("it has failed and fails no more")
    return at, *found


def _fails(measure: Measure, subject: Subject, n: int, batches: tuple[int, ...], seeds: int) -> tuple[int, int] | None:
    """The smallest batch, and the first seed, for which it fails at a length."""
    for batch in batches:
        for seed in range(seeds):
            try:
                if measure(subject, n, batch, seed).fails:
                    return batch, seed
            except Exception:  # shorter than it takes, or than can be measured
                continue
    return None


class Unmeasurable(Exception):
    """A measurement that needs what the module does not take, as another length."""
