"""An entry has a label that tells it from those that are alike, and every variant of conf/attention has one."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from xformer.benchmark.entries import labelled
from xformer.benchmark.equivalence import TORCH
from xformer.benchmark.questions.attention import LAYER, measure
from xformer.benchmark.settings import settings
from xformer.commands.new_plugin import write_plugin
from xformer.config import plugins
from xformer.config.plugins import CONF, VARIABLE, name_plugins
from xformer.errors import ConfigError

LOCAL = "variants=[{attention: local, window: 4}, {attention: local, window: 8}, {attention: full}]"


def test_a_label_tells_alike_variants_apart_by_what_differs() -> None:
    names = [name for name, _ in labelled(settings("attention", [LOCAL], quick=False), "variants")]
    assert names == ["local window=4", "local window=8", "full"]
    same = LOCAL.replace("local, window: 8", "local, window: 4, position: alibi")
    names = [name for name, _ in labelled(settings("attention", [same], quick=False), "variants")]
    assert names == ["local", "local+alibi", "full"]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The template's package, whose variant takes queries, keys and values, with a token mixer too, named as typed."""
    name = "trial_of_benchmarks"
    write_plugin(name, tmp_path / "project")
    package = tmp_path / "project" / name
    shutil.copy(Path(__file__).parents[1] / "contracts" / "toy_mixer.py", package)
    option = f"_target_: {name}.toy_mixer.ToyMixer\n_partial_: true\ndecay: 0.9\n"
    (package / "conf" / "attention" / "toy.yaml").write_text(option)
    monkeypatch.syspath_prepend(str(tmp_path / "project"))
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    plugins._plugins.cache_clear()
    name_plugins([f"plugins=[{name}]"])
    yield name
    plugins._plugins.cache_clear()
    for module in [each for each in sys.modules if each.partition(".")[0] == name]:
        del sys.modules[module]


@pytest.mark.parametrize("question", ["attention", "decoding"])
def test_every_option_is_found_but_the_hybrid_which_is_made_of_them(question: str) -> None:
    options = {file.stem for file in (CONF / "attention").glob("*.yaml")} - {"hybrid"}
    config = settings(question, [])
    names = [name for name, _ in labelled(config, "variants")]
    assert {entry["attention"] for entry in config.variants} == options
    assert names[:4] == ["full", "full+alibi", "full+t5", "local"]
    assert "mamba2" in names
    assert len(names) == len({*names})


def test_parameters_are_set_without_naming_the_variants() -> None:
    config = settings("attention", ["parameters=[{attention: mamba2, state_size: 16}]"])
    assert config.variants[0] == {"attention": "mamba2", "state_size": 16}
    assert {"attention": "full"} in config.variants
    with pytest.raises(ConfigError, match=r"parameters has stat_size: 16.* did you mean state_size"):
        settings("attention", ["parameters=[{attention: mamba2, stat_size: 16}]"])
    with pytest.raises(ConfigError, match=r"parameters has .* which lacks attention"):
        settings("attention", ["parameters=[{window: 16}]"])


def test_a_plugins_variants_are_found_and_measured(plugin: str) -> None:
    small = ["lengths=[8]", "causal=[true]", "rounds=1", "seconds=0", "heads=2", "head_dim=4"]
    config = settings("attention", small)
    assert {plugin, "toy"} <= {entry["attention"] for entry in config.variants}
    results = measure(config, peers=False)
    against = {row["variant"]: row["against"] for row in results.rows}
    assert against[plugin] == TORCH
    assert {name for name, other in against.items() if other == LAYER} >= {"toy", "mamba2", "retention"}
    assert any("toy" in note and "own their projections" in note for note in results.notes)


def test_a_mixer_is_no_pair_of_what_takes_queries() -> None:
    entry = "pairs=[{attention: mamba2, length: 8, causal: true, against: torch fused}]"
    with pytest.raises(ConfigError, match=r"mamba2, which owns its projections, against torch fused.* whole layer"):
        settings("pairs", [entry])


def test_a_hybrid_is_not_measured_by_itself() -> None:
    config = settings("attention", ["variants=[{attention: hybrid}]", "lengths=[8]"])
    with pytest.raises(ConfigError, match=r"attention: hybrid is made of other variants.* `training`"):
        measure(config, peers=False)
