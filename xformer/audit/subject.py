"""A module under audit: built from a seed, in float64 if it supports that, with inputs of any accepted length.

Shapes: b batch, n length, d features.
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xformer.audit.calling import Calling, Mix, Step
from xformer.audit.target import Target

LENGTHS = (*range(1, 17), 20, 24, 32, 40, 48, 64, 65, 96, 128, 160, 192, 256, 257, 320, 384, 512)
"""The lengths to try, in increasing order."""
JITTER = 0.1
_PATIENCE = 3.0


@dataclass
class Subject:
    """A class, how its objects are called, and the type used for structural contracts.

    Attributes:
        target: the class and its arguments.
        calling: how a module is called.
        width: features of a token.
        dtype: float64, or float32 if the module cannot run in float64.
        lengths: those of LENGTHS that it accepts.
    """

    target: Target
    calling: Calling
    width: int
    dtype: torch.dtype = torch.float64
    lengths: tuple[int, ...] = field(default=(), init=False)
    built: dict[tuple[int, torch.dtype], tuple[nn.Module, Any]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        found, began = [], time.perf_counter()
        for n in LENGTHS:
            if self.takes(n):
                found.append(n)
            if time.perf_counter() - began > _PATIENCE:
                break
        self.lengths = tuple(found)

    def at(self, seed: int, *, dtype: torch.dtype | None = None, train: bool = False) -> "Module":
        """Build a module with the initial values of a seed."""
        return Module(self, seed, dtype or self.dtype, train)

    def nearest(self, length: int) -> int:
        """The shortest accepted length of at least this many tokens, else the longest."""
        return next((n for n in self.lengths if n >= length), self.lengths[-1])

    def takes(self, length: int) -> bool:
        """Whether it accepts this length."""
        try:
            with torch.no_grad():
                module = self.at(0)
                y = module(module.draw(1, length))
        except Exception:
            return False
        return y.shape[:2] == (1, length)

    def source(self, seed: int, *, train: bool = False) -> list[str]:
        """Lines of Python that build the module of a seed and define `mix` or `step`."""
        imports = [line for line in self.target.source() if line.startswith("from ")]
        made = [line for line in self.target.source() if not line.startswith("from ")]
        return [
            "import torch",
            *imports,
            "",
            f"torch.manual_seed({seed})",
            *made,
            f"module = module.to({self.dtype}).{'train' if train else 'eval'}()",
            "for p in module.parameters():  # so that zeros and ones hide nothing",
            "    if p.numel() and (p == p.flatten()[0]).all():",
            f"        torch.nn.init.normal_(p, p.flatten()[0].item(), {JITTER})",
            *self.calling.imports(),
            "",
            "",
            *self.calling.source(),
            "",
            "",
        ]


class Module:
    """A module with the initial values of a seed, and how to call it.

    Parameters whose elements are all equal, such as zero biases, are drawn around their value, because zeros hide
    effects of a trained module.
    """

    def __init__(self, subject: Subject, seed: int, dtype: torch.dtype, train: bool) -> None:
        self.seed, self.dtype, self.width = seed, dtype, subject.width
        if (seed, dtype) not in subject.built:
            subject.built[seed, dtype] = _build(subject.target, seed, dtype)
        module, config = subject.built[seed, dtype]
        self.module: nn.Module = deepcopy(module).train(train)
        functions: tuple[Mix, Step | None] = subject.calling.functions(config)
        self._mix, self._step = functions

        self._buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}

    def __call__(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Its outputs, (b, n, features), with its initial buffers."""
        self._restore()
        return self._mix(self.module, x, valid)

    def repeated(self, x: Tensor) -> Tensor:
        """Its outputs with the buffers that the previous call left."""
        return self._mix(self.module, x, None)

    def _restore(self) -> None:
        with torch.no_grad():
            for name, buffer in self.module.named_buffers():
                if buffer.shape == self._buffers[name].shape:
                    buffer.copy_(self._buffers[name])

    @property
    def steps(self) -> bool:
        """Whether it can decode step by step."""
        return self._step is not None

    def step(self, x: Tensor, state: Any, start: int) -> tuple[Tensor, Any]:
        """The outputs of the next tokens, and the new state."""
        assert self._step is not None
        if start == 0:
            self._restore()
        return self._step(self.module, x, state, start)

    def draw(self, batch: int, length: int, shift: int = 0) -> Tensor:
        """Draw standard normal inputs with the module's seed, (b, n, d)."""
        generator = torch.Generator().manual_seed(1000 * shift + self.seed)
        return torch.randn(batch, length, self.width, generator=generator, dtype=torch.float64).to(self.dtype)

    def parameters(self) -> list[Tensor]:
        """The trained parameters."""
        return [p for p in self.module.parameters() if p.requires_grad]

    def copy_to(self, dtype: torch.dtype) -> "Module":
        """The same module with its parameters and buffers in another type."""
        other = deepcopy(self)
        other.module, other.dtype = other.module.to(dtype), dtype
        other._buffers = {name: buffer.clone() for name, buffer in other.module.named_buffers()}
        return other


def _build(target: Target, seed: int, dtype: torch.dtype) -> tuple[nn.Module, Any]:
    seed_all(seed)
    module, config = target.build()
    module = module.to(dtype)
    with torch.no_grad():
        for p in module.parameters():
            if p.numel() and (p == p.flatten()[0]).all():
                nn.init.normal_(p, p.flatten()[0].item(), JITTER)
    return module, config


def seed_all(seed: int) -> None:
    """Seed every generator that a module may draw from."""
    # Without a device, torch.manual_seed would record the call stack for each kind of device that is not there, which
    # takes longer than a small module's call.
    set_seed = torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed
    set_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002


@contextmanager
def generators_kept() -> Iterator[None]:
    """Context manager that restores every random generator."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])  # noqa: NPY002
