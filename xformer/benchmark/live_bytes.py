"""Exact, reproducible memory use of a computation, counted from the storages that it allocates."""

import gc
import weakref
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import torch
from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xformer.core import devices


class LiveBytes(TorchDispatchMode):
    """A dispatch mode that counts the live bytes of all storages that operations allocate, and their peak.

    Tensors that no operation made, such as inputs and weights, and views of them are not counted. It also counts inside
    of autograd functions, the backward pass and operators written in Python. Temporary memory within a compiled kernel
    is not seen.

    Attributes:
        now: the live bytes.
        peak: the peak of the live bytes.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.peak: int = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count its new storages."""
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, torch.Tensor):
                self._track(tensor.untyped_storage())
        result = self._run(func, args, kwargs or {})
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        operator = OPDEFS.get(func._schema.name)
        if operator is None:
            return func(*args, **kwargs)
        with self:  # which is disabled here and would not see operations inside the operator
            return operator._init_fn(*args, **kwargs)

    def _track(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._known:
            self._known.add(key)
            weakref.finalize(storage, self._known.discard, key)

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._known:
            self._known.add(key)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, count: int) -> None:
        self._known.discard(key)
        self.now -= count


def extra_bytes(call: Callable[[], object]) -> int:
    """The peak bytes that a call allocates: from the allocator on a CUDA device, else counted."""
    gc.collect()
    if devices.is_available():
        before = devices.reset_peak_memory()
        call()
        return max((peak - held for peak, held in zip_longest(devices.peak_memory(), before, fillvalue=0)), default=0)
    live = LiveBytes()
    with live:
        call()
    return live.peak
