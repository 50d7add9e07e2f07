"""CUDA as this process sees it: the one module that calls `torch.cuda`.

torch initialises CUDA at the first call that needs a context. Some calls initialise it, some do not need it, and some
fail without it: `reset_peak_memory_stats` before the first tensor is "Invalid device argument". All such calls are in
this module, so a machine without a device can test their order with a substitute for `cuda`.
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
    """The current CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if is_available() else "cpu")


def device_names() -> list[str]:
    """The name of each CUDA device, such as "NVIDIA H200"."""
    return [cuda.get_device_name(index) for index in range(device_count())]


def device_name(device: torch.device) -> str | None:
    """The name of a CUDA device; None for any other device."""
    return cuda.get_device_name(device) if device.type == "cuda" else None


def synchronize(device: torch.device | None = None) -> None:
    """Wait until all work on a CUDA device is done; does nothing if CUDA was not used.

    Args:
        device: the device; None for the current CUDA device.
    """
    if is_initialized() and (device is None or device.type == "cuda"):
        cuda.synchronize(device)


def reset_peak_memory() -> list[int]:
    """Reset `peak_memory` and return the bytes that tensors hold now, by device; empty if CUDA was not used."""
    if not is_initialized():  # there is no peak to forget, and torch would raise
        return []
    devices = range(device_count())
    for device in devices:
        cuda.reset_peak_memory_stats(device)
    return [cuda.memory_allocated(device) for device in devices]


def peak_memory() -> list[int]:
    """The peak number of bytes that tensors held, by device; empty if CUDA was not used."""
    if not is_initialized():
        return []
    return [cuda.max_memory_allocated(device) for device in range(device_count())]


def empty_cache() -> None:
    """Release cached memory that no tensor holds."""
    cuda.empty_cache()


def random_states() -> list[Tensor]:
    """The state of each device's random generator; empty if CUDA was not used."""
    return cuda.get_rng_state_all() if is_initialized() else []


def set_random_states(states: list[Tensor]) -> None:
    """Restore the states that `random_states` returned, on as many devices as exist."""
    for device, state in enumerate(states[: device_count()]):
        cuda.set_rng_state(state.cpu(), device)


@contextmanager
def forbid_synchronization() -> Iterator[None]:
    """Context manager that raises if the host waits for a device, as far as torch detects it."""
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
    """Whether this is the main process of the run."""
    from lightning.pytorch.utilities import rank_zero_only  # slow to import, and threads are counted before

    return getattr(rank_zero_only, "rank", 0) == 0
