"""Energy is what counters say, and nothing where there are none."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from xformer.benchmark import energy
from xformer.benchmark.energy import Meter


class Counters:
    """A GPU at 100 W and a processor at 20 W, memory included, on a clock of two seconds a window."""

    gpu_indices: Any = (0,)
    cpu_indices: Any = (0,)

    def begin_window(self, name: str) -> None:
        self.open = name

    def end_window(self, name: str) -> SimpleNamespace:
        assert name == self.open
        return SimpleNamespace(time=2.0, gpu_energy={0: 200.0}, cpu_energy={0: 30.0}, dram_energy={0: 10.0})


class Nothing(Counters):
    """A machine whose counters this user may not read."""

    gpu_indices = cpu_indices = ()


class Still(Counters):
    """Counters that do not move."""

    def end_window(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(time=2.0, gpu_energy={0: 0.0}, cpu_energy=None, dram_energy=None)


class NoGPU(Exception):
    """What Zeus raises where there is none."""


def machine(monkeypatch: pytest.MonkeyPatch, monitor: type[Counters], *, gpus: list[bool] | None) -> None:
    """A Zeus with this monitor, of GPUs that have a counter or do not."""

    def get_gpus() -> Any:
        if gpus is None:
            raise NoGPU
        return type("GPUs", (list,), {"supports_get_total_energy_consumption": list.__getitem__})(gpus)

    contents: dict[str, dict[str, object]] = {
        "zeus": {},
        "zeus.device": {"get_gpus": get_gpus},
        "zeus.device.gpu": {},
        "zeus.device.gpu.common": {"ZeusGPUInitError": NoGPU},
        "zeus.monitor": {"ZeusMonitor": monitor},
    }
    for name, content in contents.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(energy, "find_spec", lambda name: object())


def watts(meter: Meter) -> float | None:
    for _ in range(3):
        with meter.measure("model"):
            pass
    return meter.watts("model")


@pytest.mark.parametrize("gpus", [[True], None])
def test_watts_are_joules_of_all_devices_per_second(gpus: list[bool] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, Counters, gpus=gpus)
    meter = Meter.of_this_machine()
    assert watts(meter) == 120
    assert meter.watts("other") is None
    assert "NVML of GPU 0 and RAPL of processor 0" in meter.source


def test_a_turn_is_long_enough_for_the_counters() -> None:
    assert Meter(Counters()).least(0.03) == 1
    assert Meter(Counters()).least(5.0) == 5
    assert Meter(None).least(0.03) == 0.03


@pytest.mark.parametrize(("monitor", "gpus"), [(Counters, [True, False]), (Nothing, []), (Still, [True])])
def test_what_no_counter_tells_is_no_number(
    monitor: type[Counters], gpus: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a GPU without a counter Zeus would tell an estimate."""
    machine(monkeypatch, monitor, gpus=gpus)
    meter = Meter.of_this_machine()
    assert watts(meter) is None
    assert meter.absent == "not exposed"


def test_without_zeus_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "find_spec", lambda name: None)
    meter = Meter.of_this_machine()
    assert watts(meter) is None
    assert meter.absent == "not read"
    assert "Zeus is not installed" in meter.source
