"""Energy measurement with Zeus: NVML's counters of GPUs and RAPL's of processors and memory.

Nothing is estimated: if the machine exposes no counter, or Zeus (the extra `energy`) is not installed, the result is
None. For a GPU without a counter Zeus would integrate samples of its power; with such a GPU nothing is read. A counter
measures the whole device, including the work of other users.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

LEAST = 1.0
"""The minimum seconds of a turn with energy measurement; counters of GPUs update about ten times a second."""


class Meter:
    """Measures the mean power of named computations.

    Args:
        monitor: an object with the interface of `zeus.monitor.ZeusMonitor`; None without counters.
    """

    def __init__(self, monitor: Any) -> None:
        self._monitor = monitor
        self._joules: dict[str, float] = defaultdict(float)
        self._seconds: dict[str, float] = defaultdict(float)

    @classmethod
    def of_this_machine(cls) -> "Meter":
        """Create a meter of all counters that this machine exposes to this user."""
        if find_spec("zeus") is None:
            return cls(None)
        logging.getLogger("zeus").setLevel(logging.ERROR)  # it logs every missing kind of device
        from zeus.device import get_gpus
        from zeus.device.gpu.common import ZeusGPUInitError
        from zeus.monitor import ZeusMonitor

        try:
            gpus = get_gpus()
            supported = all(gpus.supports_get_total_energy_consumption(index) for index in range(len(gpus)))
        except ZeusGPUInitError:  # there is none
            supported = True
        monitor = ZeusMonitor() if supported else None  # which would begin to sample at once
        return cls(monitor if monitor and (monitor.gpu_indices or monitor.cpu_indices) else None)

    @property
    def absent(self) -> str:
        """The text shown in a table without a measurement: not requested, or not available."""
        return "not read" if self._monitor is None and find_spec("zeus") is None else "not exposed"

    def least(self, seconds: float) -> float:
        """The minimum duration of a turn, so that the counters can resolve it."""
        return seconds if self._monitor is None else max(seconds, LEAST)

    @property
    def source(self) -> str:
        """A sentence that names the devices whose counters are read."""
        if self._monitor is None and find_spec("zeus") is None:
            return "Energy: not read, as Zeus is not installed (the extra `energy`)."
        if self._monitor is None:
            return "Energy: this machine exposes no counters, neither NVML of every GPU nor RAPL, to this user."
        gpus, cpus = self._monitor.gpu_indices, self._monitor.cpu_indices
        read = [f"NVML of GPU {', '.join(map(str, gpus))}"] if gpus else []
        read += [f"RAPL of processor {', '.join(map(str, cpus))} and its memory"] if cpus else []
        return f"Energy: {' and '.join(read)}, of the whole device, idle power included."

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Measure the energy of a block by reading the counters before and after."""
        if self._monitor is None:
            yield
            return
        self._monitor.begin_window(name)
        yield
        used = self._monitor.end_window(name)
        counters = (used.gpu_energy, used.cpu_energy, used.dram_energy)
        self._joules[name] += sum(sum(counter.values()) for counter in counters if counter)
        self._seconds[name] += used.time

    def watts(self, name: str) -> float | None:
        """The mean power in watts; None if no counter changed."""
        return self._joules[name] / self._seconds[name] if self._joules.get(name) else None
