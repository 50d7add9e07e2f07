"""Energy is what counters say, and nothing where there are none."""

from types import SimpleNamespace

import pytest

from xformer.benchmark.energy import Meter


class Counters:
    """A GPU at 100 W and a processor at 20 W, memory included, on a clock of two seconds a window."""

    gpu_indices = (0,)
    cpu_indices = (0,)

    def begin_window(self, name: str) -> None:
        self.open = name

    def end_window(self, name: str) -> SimpleNamespace:
        assert name == self.open
        return SimpleNamespace(time=2.0, gpu_energy={0: 200.0}, cpu_energy={0: 30.0}, dram_energy={0: 10.0})


def test_watts_are_joules_of_all_devices_per_second() -> None:
    meter = Meter(Counters())
    for _ in range(3):
        with meter.measure("model"):
            pass
    assert meter.watts("model") == pytest.approx(120)
    assert meter.watts("other") is None
    assert "NVML of GPU 0 and RAPL of processor 0" in meter.source


def test_without_counters_there_is_no_number() -> None:
    meter = Meter(None)
    with meter.measure("model"):
        pass
    assert meter.watts("model") is None
    assert "not" in meter.source or "no counter" in meter.source


def test_this_machine_is_asked_and_never_guessed() -> None:
    meter = Meter.of_this_machine()
    with meter.measure("model"):
        sum(range(10**6))
    watts = meter.watts("model")
    assert watts is None or watts > 0
