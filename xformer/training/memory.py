"""Peak memory of one run, also if several runs share a process."""

import contextlib
import sys
from itertools import zip_longest
from pathlib import Path

from xformer.core import devices

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_HIGH_WATER_MARK = "5"  # proc(5), /proc/pid/clear_refs


class PeakMemory:
    """Measures the peak memory since `reset()`.

    With CUDA, the bytes that tensors held on the fullest device; otherwise the resident bytes of the process.
    Where the system cannot reset its high-water mark (anything but Linux), the peak is that of the whole process.
    """

    def __init__(self) -> None:
        self._held: list[int] = []

    def reset(self) -> None:
        """Forget the peak so far."""
        self._held = devices.reset_peak_memory()
        with contextlib.suppress(OSError):
            _CLEAR.write_text(_RESET_HIGH_WATER_MARK, encoding="ascii")

    def bytes(self) -> int:
        """The peak in bytes: of the CUDA device with the highest peak, else of the process's resident set."""
        grown = (peak for peak, held in zip_longest(devices.peak_memory(), self._held, fillvalue=0) if peak > held)
        return max(grown, default=0) or _resident_peak()


def _resident_peak() -> int:
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return _usage_peak()


def _usage_peak() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, kibibytes elsewhere
