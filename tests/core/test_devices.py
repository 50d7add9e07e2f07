"""The order in which a run calls CUDA, on a machine that has none."""

import ast
import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import cuda

from tests.core.fake_cuda import H200, FakeCuda
from xformer.benchmark.live_bytes import extra_bytes
from xformer.benchmark.timing import interleaved
from xformer.callbacks.resume import random_state, set_random_state
from xformer.core import devices
from xformer.runs.provenance import hardware
from xformer.training.memory import PeakMemory

ROOT = Path(__file__).parents[2]
ALONE = ROOT / "xformer/core/devices.py"
HERE = Path(__file__)
FUNCTIONS = sorted(
    name for name, value in vars(FakeCuda).items() if name[0] != "_" and callable(getattr(cuda, name, None))
)
PUBLIC = {
    name: value
    for name, value in vars(devices).items()
    if inspect.isfunction(value) and value.__module__ == devices.__name__
}
ENDS = {"_lazy_init", "_lazy_call", "is_initialized", "device_count"}
"""Functions of torch that are known."""
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "device_name": (torch.device("cuda"),),
    "set_random_states": ([torch.ones(16, dtype=torch.uint8)],),
}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """A machine with one device that nothing has used."""
    found = FakeCuda()
    monkeypatch.setattr(devices, "cuda", found)
    return found


def uses_of_cuda(file: Path) -> Iterator[str]:
    """Where a file reaches for `torch.cuda`, whatever it calls it."""
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Import():
                found = any(alias.name.startswith("torch.cuda") for alias in node.names)
            case ast.ImportFrom():
                found = f"{node.module}.".startswith("torch.cuda.") or (
                    node.module == "torch" and any(alias.name == "cuda" for alias in node.names)
                )
            case ast.Attribute(value=ast.Name("torch"), attr="cuda"):
                found = True
            case _:
                found = False
        if found:
            yield f"{file.relative_to(ROOT)}:{node.lineno}"


def test_one_module_alone_calls_cuda() -> None:
    files = [file for folder in ("xformer", "tests", ".ci") for file in (ROOT / folder).rglob("*.py")]
    assert len(files) > 300
    assert [use for file in files if file not in (ALONE, HERE) for use in uses_of_cuda(file)] == []
    assert list(uses_of_cuda(ALONE))  # else the search finds nothing anywhere


def initialisation(name: str) -> str:
    """What torch's own source does about a context: `initialises`, `asks`, or `neither` before it calls CUDA."""
    seen: set[str] = set()

    def names_of(function: Callable[..., Any]) -> None:
        code = function.__code__
        inner_codes = [part for part in code.co_consts if inspect.iscode(part) and part.co_name == "<listcomp>"]
        for called in {name for part in (code, *inner_codes) for name in part.co_names} - seen:
            seen.add(called)
            inner = function.__globals__.get(called)
            if inspect.isfunction(inner) and inner.__module__.startswith("torch.cuda") and called not in ENDS:
                names_of(inner)

    names_of(getattr(cuda, name))
    if "_lazy_init" in seen:
        return "initialises"
    return "asks" if seen & {"is_initialized", "_lazy_call"} else "neither"


def answer(name: str) -> str:
    """The same of the stand-in."""
    found = FakeCuda()
    arguments = {"set_rng_state": (torch.zeros(16, dtype=torch.uint8),), "set_sync_debug_mode": (0,)}
    try:
        getattr(found, name)(*arguments.get(name, ()))
    except RuntimeError:
        return "neither"
    return "initialises" if found.initialised else "asks"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_stand_in_behaves_as_the_source_of_torch_says(name: str) -> None:
    parameters = inspect.signature(getattr(cuda, name)).parameters
    assert [p for p in inspect.signature(getattr(FakeCuda, name)).parameters if p != "self"] == [
        {"new_state": "state", "debug_mode": "mode"}.get(p, p) for p in parameters
    ]
    if name in {"is_available", "device_count", "is_initialized"}:  # which ask the driver, and need no context
        assert answer(name) == "asks"
    else:
        assert answer(name) == initialisation(name)


def test_what_died_dies_in_the_stand_in() -> None:
    with pytest.raises(RuntimeError, match="Invalid device argument"):
        FakeCuda().reset_peak_memory_stats(0)


@pytest.mark.parametrize("initialised", [False, True])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", PUBLIC)
def test_every_function_can_be_the_first(
    name: str, count: int, initialised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "cuda", FakeCuda(*[H200] * count, initialised=initialised))
    found = PUBLIC[name](*ARGUMENTS.get(name, ()))
    if name == "forbid_synchronization":
        with found:
            pass


def test_looking_initialises_nothing(fake: FakeCuda) -> None:
    """A process that has initialised CUDA cannot be forked any more."""
    devices.is_available()
    devices.default_device()
    devices.synchronize()
    devices.reset_peak_memory()
    devices.peak_memory()
    devices.random_states()
    assert not fake.initialised


def test_a_peak_is_that_of_the_device_since_the_reset(fake: FakeCuda) -> None:
    memory = PeakMemory()
    memory.reset()
    resident = memory.bytes()  # nothing used the device
    fake.use(1 << 40)
    assert memory.bytes() == 1 << 40 > resident
    fake.held[0] = 1 << 35  # of a run before, of which something still lives
    memory.reset()
    assert memory.bytes() < 1 << 35  # the next run is on the processor
    fake.use(3)
    assert memory.bytes() == (1 << 35) + 3


def test_a_peak_is_that_of_the_fullest_device(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCuda(H200, H200, initialised=True)
    monkeypatch.setattr(devices, "cuda", fake)
    memory = PeakMemory()
    memory.reset()
    fake.use(1 << 40, device=1)
    assert memory.bytes() == 1 << 40


def test_the_machine_names_its_devices(fake: FakeCuda) -> None:
    assert hardware()["cuda"] == [H200]
    assert devices.device_name(torch.device("cuda", 0)) == H200
    assert devices.device_name(torch.device("cpu")) is None


def test_random_states_come_back(fake: FakeCuda) -> None:
    before = random_state()
    assert before["cuda"] == []  # nothing drew from it
    fake.initialised = True
    fake.states[0] += 7
    kept = random_state()
    fake.states[0] += 1
    set_random_state(kept)
    assert fake.states[0].tolist() == [7] * 16


def test_extra_memory_is_what_a_call_adds(fake: FakeCuda) -> None:
    assert extra_bytes(lambda: fake.use(100)) == 100
    fake.held[0], fake.peak[0] = 50, 400
    assert extra_bytes(lambda: fake.use(100)) == 100


def test_the_clock_waits_for_the_device_on_either_side(fake: FakeCuda) -> None:
    fake.initialised = True
    interleaved({"step": lambda: fake.called.append("step")}, rounds=1, warmup=0)
    steps = [place for place, call in enumerate(fake.called) if call == "step"]
    assert len(steps) == 2
    for place in steps:
        assert fake.called[place - 1] == fake.called[place + 1] == "synchronize"


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.filterwarnings("error")
def test_refusing_to_wait_ends_whatever_happens(before: int, fake: FakeCuda) -> None:
    """The first time, torch warns, and a warning is an error in the tests."""
    fake.mode = before
    with devices.forbid_synchronization():
        assert fake.mode == 2
    assert fake.mode == before
    with pytest.raises(ValueError, match="within"), devices.forbid_synchronization():
        raise ValueError("within")
    assert fake.mode == before


def test_what_the_compiler_imports_is_no_error() -> None:
    """Inductor imports it where it compiles, and on some versions of Python it warns of its own deprecation."""
    import torch.utils.mkldnn

    importlib.reload(torch.utils.mkldnn)


def test_refusing_to_wait_ends_where_it_cannot_begin(fake: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = FakeCuda.set_sync_debug_mode

    def half(self: FakeCuda, mode: int | str) -> None:
        refuse(self, mode)
        if mode == "error":
            raise UserWarning("a prototype")

    monkeypatch.setattr(FakeCuda, "set_sync_debug_mode", half)
    with pytest.raises(UserWarning, match="prototype"), devices.forbid_synchronization():
        pass
    assert fake.mode == 0
