import sys

import pytest

from xformer.training.memory import PeakMemory

MEGABYTE = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset its high-water mark")
def test_peak_memory_rises_with_use_and_forgets_on_reset() -> None:
    memory = PeakMemory()
    memory.reset()
    before = memory.bytes()
    block = bytearray(256 * MEGABYTE)  # more than is looked for, as the system may take cold pages of the process away
    block[::4096] = b"x" * len(block[::4096])
    assert memory.bytes() - before > 60 * MEGABYTE
    del block
    assert memory.bytes() - before > 60 * MEGABYTE
    memory.reset()
    assert memory.bytes() - before < 30 * MEGABYTE


def test_peak_memory_without_proc_is_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    from xformer.training import memory

    monkeypatch.setattr(memory, "_STATUS", Path("/nowhere/status"))
    monkeypatch.setattr(memory, "_CLEAR", Path("/nowhere/clear_refs"))
    peak = memory.PeakMemory()
    peak.reset()
    assert 50 * MEGABYTE < peak.bytes() < 2**40
