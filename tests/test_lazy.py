"""`import xformer` offers what a notebook needs, and loads it only when it is used."""

import subprocess
import sys

import pytest

import xformer
from xformer.config.groups import groups
from xformer.config.variants import variants

HEAVY = ("torch", "lightning", "hydra", "omegaconf", "pandas", "numpy")


def in_a_process(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_it_loads_nothing() -> None:
    loaded = in_a_process("import sys, xformer; print(*(name.partition('.')[0] for name in sys.modules))").split()
    assert "xformer" in loaded
    assert not {*HEAVY} & {*loaded}


def test_a_module_is_found_without_loading_the_variants() -> None:
    loaded = in_a_process("import sys; from xformer import commands; print(*sys.modules)").split()
    assert "xformer.commands" in loaded
    assert "xformer.config.variants" not in loaded


@pytest.mark.parametrize("name", xformer.__all__)
def test_every_name_that_is_promised_is_there(name: str) -> None:
    assert getattr(xformer, name) is getattr(xformer, name)
    assert name in dir(xformer)


def test_every_attention_of_conf_is_a_name() -> None:
    assert {*variants().values()} == {*groups()["attention"]}
    assert {*variants()} <= {*dir(xformer)}


@pytest.mark.parametrize(
    ("name", "way_out"), [("Perfomer", "did you mean Performer?"), ("Nothing", "Additive, BigBird"), ("nothing", "")]
)
def test_a_name_that_is_not_there_is_told_as_python_tells_it(name: str, way_out: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'xformer' has no attribute '{name}'.*{way_out}"):
        getattr(xformer, name)
