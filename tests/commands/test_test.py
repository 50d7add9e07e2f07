"""`xformer test`: the contracts are there, they see a plugin's variants, and what cannot be tested is a sentence."""

from pathlib import Path

import pytest

from tests.conftest import Command
from xformer.commands import test as command
from xformer.commands.new_plugin import write_plugin
from xformer.config import plugins


def test_the_contracts_are_found() -> None:
    assert {"variants.py", "test_attention.py", "tiny.py"} <= {file.name for file in command.CONTRACTS.iterdir()}


@pytest.mark.parametrize(
    ("conf", "sentence"),
    [
        ("data", "trial_of_test has no option in conf/attention/ or conf/position/"),
        (None, "the plugin trial_of_test has no folder conf/"),
    ],
)
def test_what_cannot_be_tested_is_refused(
    conf: str | None, sentence: str, tmp_path: Path, xformer: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "trial_of_test").mkdir()
    (tmp_path / "trial_of_test" / "__init__.py").touch()
    if conf is not None:
        (tmp_path / "trial_of_test" / "conf" / conf).mkdir(parents=True)
    plugins._plugins.cache_clear()
    code, _, said = xformer("test", "trial_of_test")
    assert code == 1
    assert sentence in said


@pytest.mark.slow
def test_a_made_plugin_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plugin("trial_of_contracts", tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[2]}:{tmp_path}")
    monkeypatch.setattr("sys.argv", ["xformer test", "trial_of_contracts", "-x"])
    plugins._plugins.cache_clear()
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 0
