"""The user's directories are where the specification has them."""

from pathlib import Path

import pytest

from xformer.core.user_directories import user_cache, user_config


@pytest.mark.parametrize(
    ("variable", "found", "default"),
    [("XDG_CACHE_HOME", user_cache, ".cache"), ("XDG_CONFIG_HOME", user_config, ".config")],
)
def test_the_variable_decides_where_it_is_absolute(variable, found, default, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    for value, expected in {"/there": "/there/xformer", "there": f"/home/someone/{default}/xformer"}.items():
        monkeypatch.setenv(variable, value)
        assert found() == Path(expected)
    monkeypatch.delenv(variable)
    assert found() == Path(f"/home/someone/{default}/xformer")
