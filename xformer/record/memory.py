"""The peak memory of one run, also where several runs share a process."""

import contextlib
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_HIGH_WATER_MARK = "5"  # proc(5), /proc/pid/clear_refs


class PeakMemory:
    """Peak memory since `reset()`.

    With CUDA, the bytes that tensors held on the fullest device; otherwise the resident bytes of the process.
    Where the system cannot reset its high-water mark (anything but Linux), the peak is that of the whole process.
    """

    def reset(self) -> None:
        """Forget the peak so far."""
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)
        with contextlib.suppress(OSError):
            _CLEAR.write_text(_RESET_HIGH_WATER_MARK, encoding="ascii")

    def bytes(self) -> int:
        """The peak in bytes: of the fullest CUDA device that was used, else of the resident set."""
        allocated = [torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count())]
        return max(allocated, default=0) or _resident_peak()


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
