"""A plugin's options are options, its classes targets; what cannot be used, or is not named, is one sentence."""

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from xformer.commands.new_plugin import write_plugin
from xformer.config import plugins as found
from xformer.config.compose import compose_config
from xformer.config.groups import callback_options, groups, option_file
from xformer.config.layer_names import with_layers
from xformer.config.plugins import VARIABLE, allowed_prefixes, name_plugins, plugins, require_plugins
from xformer.config.validate import target
from xformer.config.variants import variants
from xformer.core.program import train_command
from xformer.errors import ConfigError
from xformer.runs.open_run import check_targets

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A package on the path with these files beside its `__init__.py`."""
    before = {*sys.modules}
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.syspath_prepend(str(tmp_path))
    found._plugins.cache_clear()

    def make(package: str, **files: str) -> Path:
        folder = tmp_path / package
        for name, text in {"__init__.py": "", **files}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return folder

    yield make
    found._plugins.cache_clear()
    for name in {*sys.modules} - before:
        places = [getattr(sys.modules[name], "__file__", ""), *getattr(sys.modules[name], "__path__", ())]
        if any(str(place).startswith(str(tmp_path)) for place in places):
            del sys.modules[name]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make) -> str:
    """The template's package on the path, under a name of its own."""
    write_plugin("trial_of_plugins", tmp_path / "project")
    monkeypatch.syspath_prepend(str(tmp_path / "project"))
    return "trial_of_plugins"


def test_nobody_is_trusted_unnamed(made: str) -> None:
    assert made not in groups()["attention"]
    assert allowed_prefixes() == ("xformer.",)
    with pytest.raises(ConfigError, match=f"attention={made} is not an option"):
        compose_config([f"attention={made}"])


def test_what_is_named_is_ours(made: str) -> None:
    assert name_plugins(["attention=full", f"plugins=[{made}]", "-m"]) == ["attention=full", "-m"]
    assert made in groups()["attention"]
    node = compose_config([f"attention={made}"]).attention
    assert node.temperature == 10
    assert target(node).__name__ == "TrialOfPlugins"
    file = option_file("attention", made)
    assert file is not None
    assert file.is_relative_to(plugins()[0].conf)


def test_a_plugins_option_leaves_the_classes_of_xformer_alone(make: Make) -> None:
    own = variants()["Local"]
    narrow = "_target_: xformer.attention.local.Local\n_partial_: true\nwindow: 1\n"
    make("trial_of_names", **{"conf/attention/a_narrow_window.yaml": narrow})
    name_plugins(["plugins=[trial_of_names]"])
    assert "a_narrow_window" in groups()["attention"]
    assert variants()["Local"] == own == "local"


def test_what_was_read_before_a_plugin_was_named_is_read_again(make: Make) -> None:
    before = callback_options()
    assert "later" not in before
    make("trial_of_order", **{"conf/callbacks/later.yaml": "later:\n  _target_: trial_of_order.Later\n"})
    name_plugins(["plugins=[trial_of_order]"])
    assert callback_options().later._target_ == "trial_of_order.Later"
    assert callback_options() is callback_options()
    config = OmegaConf.create({"callbacks": {"later": {"_target_": "trial_of_order.Later"}}})
    check_targets(config, "a run")


def test_a_hybrid_of_its_entries_has_a_short_name(made: str) -> None:
    name_plugins([f"plugins=[{made}]"])
    layers = [{f"{made}_conv": {"width": 3}}, {made: {"temperature": 3.0}}]
    assert with_layers("hybrid", layers) == f"hybrid({made}_conv+{made}(temperature=3.0))"


def test_several_are_named_at_once_and_one_after_the_other(made: str, make: Make) -> None:
    make("one_more", **{"conf/size/huge.yaml": ""})
    name_plugins([f"plugins={made}"])
    name_plugins(["plugins=[one_more]"])
    assert [plugin.package for plugin in plugins()] == ["one_more", made]


def test_the_users_own_settings_name_them(made: str, tmp_path: Path) -> None:
    settings = tmp_path / "settings" / "xformer" / "config.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"plugins: [{made}]\n")
    found._plugins.cache_clear()
    assert [plugin.package for plugin in plugins()] == [made]
    for text in ("plugin: [a]", "plugins: a", "plugins: [1]", "[", "- a"):
        settings.write_text(text)
        found._plugins.cache_clear()
        with pytest.raises(ConfigError, match=re.escape(str(settings))):
            plugins()


def test_an_entry_point_names_it(made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    point = found.metadata.EntryPoint(made, made, found.GROUP)
    monkeypatch.setattr(found.metadata, "entry_points", lambda group: [point] if group == found.GROUP else [])
    found._plugins.cache_clear()
    assert [plugin.package for plugin in plugins()] == [made]
    found._plugins.cache_clear()


OPTION = "_target_: odd.Odd\n"


@pytest.mark.parametrize(
    ("package", "files", "sentence"),
    [
        (
            "nowhere_at_all",
            None,
            r"the plugin nowhere_at_all cannot be imported: there is no such package here; install",
        ),
        ("not a name", None, r"not a name is not the name of a package"),
        ("odd", {}, r"the plugin odd has no folder conf/ beside its __init__\.py"),
        (
            "odd",
            {"conf/attention/full.yaml": OPTION},
            r"conf/attention/full\.yaml, and xformer has an option of that name",
        ),
        (
            "odd",
            {"conf/atention/odd.yaml": OPTION},
            r"conf/atention/odd\.yaml, which is not in a known group; the groups are archit",
        ),
        ("odd", {"conf/train.yaml": OPTION}, r"conf/train\.yaml, which is not in a known group"),
    ],
)
def test_what_cannot_be_used_is_a_sentence(
    package: str, files: dict[str, str] | None, sentence: str, make: Make
) -> None:
    if files is not None:
        make(package, **files)
    with pytest.raises(ConfigError, match=sentence):
        name_plugins([f"plugins=[{package}]"])


def test_two_plugins_with_one_option_are_a_sentence(make: Make) -> None:
    for package in ("left", "right"):
        make(package, **{"conf/size/odd.yaml": ""})
    with pytest.raises(
        ConfigError, match=r"the plugin right has conf/size/odd\.yaml, and left has an option of that name"
    ):
        name_plugins(["plugins=[right,left]"])


@pytest.mark.parametrize(
    ("text", "said"),
    [("import nothing_such", "No module named"), ("1 +", "SyntaxError"), ("raise OSError('x')", "OSError")],
)
def test_a_class_that_cannot_be_imported_is_a_sentence(text: str, said: str, make: Make) -> None:
    make("broken", **{"conf/attention/odd.yaml": "_target_: broken.odd.Odd\n", "odd.py": text})
    name_plugins(["plugins=[broken]"])
    with pytest.raises(ConfigError, match=rf"_target_=broken\.odd\.Odd cannot be imported.*{said}"):
        target(compose_config(["attention=odd"]).attention)


def test_a_run_needs_its_plugins_installed_and_named(made: str) -> None:
    with pytest.raises(ConfigError, match=f"there needs the plugin {made}, which is not named: add plugins="):
        require_plugins([made], "there")
    with pytest.raises(ConfigError, match=r"there needs the plugin gone_away, which is not installed here\."):
        require_plugins(["gone_away"], "there")
    name_plugins([f"plugins=[{made}]"])
    require_plugins([made], "there")


def test_printed_commands_name_what_only_the_command_line_named(
    made: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("of_variable", "of_settings", "of_installation"):
        make(package, **{f"conf/size/{package}.yaml": ""})
    monkeypatch.setenv(VARIABLE, "of_variable")
    settings = tmp_path / "settings" / "xformer" / "config.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text("plugins: [of_settings]\n")
    point = found.metadata.EntryPoint("p", "of_installation", found.GROUP)
    monkeypatch.setattr(found.metadata, "entry_points", lambda group: [point] if group == found.GROUP else [])
    name_plugins(["plugins=[of_variable,of_settings,of_installation]"])
    assert train_command() == "python train.py"
    for _ in range(2):  # the second time as a child process that inherits the environment
        name_plugins([f"plugins=[{made}]"])
        assert shlex.split(train_command()) == ["python", "train.py", f"plugins=[{made}]"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"a: [", "cannot be read as YAML: while parsing"),
        (b"a: 1\na: 2", "cannot be read as YAML: .*duplicate key a"),
        (b"a: \xff", "cannot be read as YAML: "),
        (b"a: ${b", "cannot be read as YAML: "),
        (b"- a", "does not hold keys and values"),
    ],
)
def test_an_option_file_that_cannot_be_read_is_a_sentence_even_where_unused(text: bytes, said: str, make: Make) -> None:
    file = make("broken", **{"conf/size/odd.yaml": ""}) / "conf/size/odd.yaml"
    file.write_bytes(text)
    with pytest.raises(ConfigError, match=rf"the plugin broken has {re.escape(str(file))}, which {said}") as error:
        name_plugins(["plugins=[broken]"])
    assert "\n" not in str(error.value)
