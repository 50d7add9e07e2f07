"""CUDA as this process sees it: the one module that calls `torch.cuda`.

torch initialises CUDA at the first call that needs a context. Some calls initialise it, some do without, and some do
neither: `reset_peak_memory_stats` before the first tensor is "Invalid device argument". Which is which is known here
alone, so a machine without a device can test the order of the calls with a stand-in for `cuda`.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, cuda


def is_available() -> bool:
    """Whether there is a CUDA device."""
    return cuda.is_available()


def device_count() -> int:
    """How many CUDA devices this process sees."""
    return cuda.device_count()


def is_initialized() -> bool:
    """Whether this process has initialised CUDA."""
    return bool(cuda.is_initialized())  # type: ignore[no-untyped-call]


def default_device() -> torch.device:
    """CUDA's current device where there is one, else the processor."""
    return torch.device("cuda" if is_available() else "cpu")


def device_names() -> list[str]:
    """What each CUDA device is called, such as "NVIDIA H200"."""
    return [cuda.get_device_name(index) for index in range(device_count())]


def device_name(device: torch.device) -> str | None:
    """What a CUDA device is called; None for any other."""
    return cuda.get_device_name(device) if device.type == "cuda" else None


def synchronize(device: torch.device | None = None) -> None:
    """Wait until everything given to a CUDA device is done; there is nothing to wait for where CUDA was not used.

    Args:
        device: which one; None for CUDA's current device.
    """
    if is_initialized() and (device is None or device.type == "cuda"):
        cuda.synchronize(device)


def reset_peak_memory() -> list[int]:
    """Forget the peaks of `peak_memory`; the bytes that tensors hold now, by device, none where CUDA was not used."""
    if not is_initialized():  # there is no peak to forget, and torch would raise
        return []
    devices = range(device_count())
    for device in devices:
        cuda.reset_peak_memory_stats(device)
    return [cuda.memory_allocated(device) for device in devices]


def peak_memory() -> list[int]:
    """The most bytes that tensors held at once, by device; none where CUDA was not used."""
    if not is_initialized():
        return []
    return [cuda.max_memory_allocated(device) for device in range(device_count())]


def empty_cache() -> None:
    """Give back the memory that no tensor holds any more."""
    cuda.empty_cache()


def random_states() -> list[Tensor]:
    """The state of each device's random generator; none where CUDA was not used, which has drawn nothing then."""
    return cuda.get_rng_state_all() if is_initialized() else []


def set_random_states(states: list[Tensor]) -> None:
    """Put back what `random_states` returned, on as many devices as there are."""
    for device, state in enumerate(states[: device_count()]):
        cuda.set_rng_state(state.cpu(), device)


@contextmanager
def forbid_synchronization() -> Iterator[None]:
    """Raise where the host waits for a device, as far as torch knows; the mode before is restored whatever happens."""
    before = cuda.get_sync_debug_mode()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is a prototype
            cuda.set_sync_debug_mode("error")
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cuda.set_sync_debug_mode(before)


def is_main_process() -> bool:
    """Whether this process speaks for all of the run's."""
    from lightning.pytorch.utilities import rank_zero_only  # slow to import, and threads are counted before

    return getattr(rank_zero_only, "rank", 0) == 0
