"""The energy that a machine says it used, through Zeus: NVML's counters of GPUs and RAPL's of processors and memory.

Nothing is estimated: where the machine exposes no counter, or Zeus (the extra `energy`) is not installed, the answer is
None. A counter tells of the whole device, whoever else uses it.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any


class Meter:
    """Watts, by the name of what ran.

    Args:
        monitor: of `zeus.monitor.ZeusMonitor`'s interface; None where there is none.
    """

    def __init__(self, monitor: Any) -> None:
        self._monitor = monitor
        self._joules: dict[str, float] = defaultdict(float)
        self._seconds: dict[str, float] = defaultdict(float)

    @classmethod
    def of_this_machine(cls) -> "Meter":
        """All counters that this machine exposes to this user."""
        if find_spec("zeus") is None:
            return cls(None)
        logging.getLogger("zeus").setLevel(logging.ERROR)  # it notes every kind of device that is not there
        from zeus.monitor import ZeusMonitor

        monitor = ZeusMonitor()
        return cls(monitor if monitor.gpu_indices or monitor.cpu_indices else None)

    @property
    def source(self) -> str:
        """The devices whose counters are read, as a sentence."""
        if self._monitor is None and find_spec("zeus") is None:
            return "Energy: not read, as Zeus is not installed (the extra `energy`)."
        if self._monitor is None:
            return "Energy: this machine exposes no counter, neither NVML nor RAPL, to this user."
        gpus, cpus = self._monitor.gpu_indices, self._monitor.cpu_indices
        read = [f"NVML of GPU {', '.join(map(str, gpus))}"] if gpus else []
        read += [f"RAPL of processor {', '.join(map(str, cpus))} and its memory"] if cpus else []
        return f"Energy: {' and '.join(read)}, of the whole device, idle power included."

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Read the counters before and after."""
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
        """The mean power while it ran; None where no counter moved."""
        return self._joules[name] / self._seconds[name] if self._joules.get(name) else None
