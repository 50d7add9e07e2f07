"""What `torch.cuda` is on a machine with devices, as far as the order of its calls goes."""

import warnings

import torch
from torch import Tensor

H200 = "NVIDIA H200"


class FakeCuda:
    """Stands in for `torch.cuda`; raises what it raises before a context is initialised. Tensors stay where they are.

    Attributes:
        initialised: whether a call has initialised CUDA, as every tensor on a device would have.
        called: the names of all calls, in order.
        held: bytes that tensors hold, by device.
        peak: the most they held.
        busy: bytes that whatever follows a reset of the peaks will use.
        mode: the sync debug mode.
    """

    def __init__(self, *names: str, initialised: bool = False) -> None:
        self.names, self.initialised = names or (H200,), initialised
        self.called: list[str] = []
        self.held, self.peak = ([0] * len(self.names) for _ in range(2))
        self.states = [torch.zeros(16, dtype=torch.uint8) for _ in self.names]
        self.busy, self.mode, self._warned = 0, 0, False

    def _note(self, name: str, *, initialises: bool = False) -> None:
        self.called.append(name)
        self.initialised |= initialises

    def is_available(self) -> bool:
        self._note("is_available")
        return bool(self.names)

    def is_initialized(self) -> bool:
        return self.initialised

    def device_count(self) -> int:
        self._note("device_count")
        return len(self.names)

    def get_device_name(self, device: torch.device | int | None = None) -> str:
        self._note("get_device_name", initialises=True)
        return self.names[_index(device)]

    def synchronize(self, device: torch.device | int | None = None) -> None:
        self._note("synchronize", initialises=True)

    def empty_cache(self) -> None:
        self._note("empty_cache")

    def memory_allocated(self, device: torch.device | int | None = None) -> int:
        self._note("memory_allocated")
        return self.held[_index(device)] if self.initialised else 0

    def max_memory_allocated(self, device: torch.device | int | None = None) -> int:
        self._note("max_memory_allocated")
        return self.peak[_index(device)] if self.initialised else 0

    def reset_peak_memory_stats(self, device: torch.device | int | None = None) -> None:
        self._note("reset_peak_memory_stats")
        if not self.initialised:
            raise RuntimeError("Invalid device argument")
        self.peak[_index(device)] = self.held[_index(device)] + self.busy

    def get_rng_state_all(self) -> list[Tensor]:
        self._note("get_rng_state_all", initialises=True)
        return [state.clone() for state in self.states]

    def set_rng_state(self, state: Tensor, device: torch.device | int | None = None) -> None:
        self._note("set_rng_state")
        self.states[_index(device)] = state.clone()

    def get_sync_debug_mode(self) -> int:
        self._note("get_sync_debug_mode", initialises=True)
        return self.mode

    def set_sync_debug_mode(self, mode: int | str) -> None:
        self._note("set_sync_debug_mode", initialises=True)
        self.mode = mode if isinstance(mode, int) else ["default", "warn", "error"].index(mode)
        if self.mode and not self._warned:
            self._warned = True
            warnings.warn("Synchronization debug mode is a prototype feature", UserWarning, stacklevel=1)

    def use(self, size: int, device: int = 0) -> None:
        """Put tensors of so many bytes on a device, and free them."""
        self.initialised = True
        self.peak[device] = max(self.peak[device], self.held[device] + size)


def _index(device: torch.device | int | None) -> int:
    return (device.index or 0) if isinstance(device, torch.device) else device or 0
