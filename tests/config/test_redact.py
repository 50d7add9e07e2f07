import json
import os
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from xformer.config.redact import resolved

SECRET = "hunter2-5d41402abc4b"


class Colour(Enum):
    RED = 1


@pytest.fixture
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SECRET", SECRET)
    monkeypatch.delenv("TEST_ABSENT", raising=False)


@pytest.fixture
def _resolvers() -> Any:
    OmegaConf.register_new_resolver("test_length", len)
    OmegaConf.register_new_resolver("test_double", lambda x: 2 * x, use_cache=True)
    yield
    OmegaConf.clear_resolver("test_length")
    OmegaConf.clear_resolver("test_double")


def config(**values: Any) -> DictConfig:
    return OmegaConf.create(values)


@pytest.mark.usefixtures("_secret", "_resolvers")
def test_no_secret_comes_through_by_any_way() -> None:
    given = config(
        direct="${oc.env:TEST_SECRET}",
        with_default="${oc.env:TEST_SECRET,nothing}",
        chained="${direct}",
        inside="https://user:${chained}@host",
        twice="${oc.env:TEST_SECRET}-${oc.env:TEST_SECRET}",
        whole="${deep}",
        deep={"items": ["a", {"key": "${direct}"}]},
        decoded="${oc.decode:${oc.env:TEST_SECRET}}",
        consumed="${test_length:${oc.env:TEST_SECRET}}",
        cached="${test_double:${oc.env:TEST_SECRET}}",
        selected="${oc.select:direct}",
        listed="${oc.dict.values:deep}",
    )
    assert given.cached == 2 * SECRET  # fills the resolver's cache with the value
    plain = resolved(given)
    text = json.dumps(plain)
    assert SECRET not in text
    assert str(len(SECRET)) not in text
    mark = "${oc.env:TEST_SECRET}"
    assert plain["direct"] == plain["with_default"] == plain["chained"] == plain["selected"] == mark
    assert plain["inside"] == f"https://user:{mark}@host"
    assert plain["consumed"] == "${test_length:${oc.env:TEST_SECRET}}"
    assert plain["twice"] == f"{mark}-{mark}"
    assert plain["whole"] == plain["deep"] == {"items": ["a", {"key": mark}]}


@pytest.mark.usefixtures("_secret", "_resolvers")
def test_the_rest_is_resolved_and_what_cannot_be_keeps_its_text() -> None:
    given = config(
        size={"width": 4},
        width="${size.width}",
        double="${test_double:${size.width}}",
        absent="${oc.env:TEST_ABSENT}",
        hydra_value="${hydra:runtime.output_dir}",
        unknown="${no_such_resolver:1}",
        dangling="${no.such.key}",
        missing="???",
        nothing=None,
        path=Path("a/b"),
        colour=Colour.RED,
        numbers=[1, 2.5, True, "${width}"],
    )
    assert resolved(given) == {
        "size": {"width": 4},
        "width": 4,
        "double": 8,
        "absent": "${oc.env:TEST_ABSENT}",
        "hydra_value": "${hydra:runtime.output_dir}",
        "unknown": "${no_such_resolver:1}",
        "dangling": "${no.such.key}",
        "missing": "???",
        "nothing": None,
        "path": "a/b",
        "colour": "RED",
        "numbers": [1, 2.5, True, 4],
    }


@pytest.mark.usefixtures("_secret")
def test_neither_the_config_nor_the_resolver_is_changed() -> None:
    given = config(direct="${oc.env:TEST_SECRET}", absent="${oc.env:TEST_ABSENT,fallback}")
    before = OmegaConf.to_container(given, resolve=False)
    resolved(given)
    assert OmegaConf.to_container(given, resolve=False) == before
    assert given.direct == os.environ["TEST_SECRET"]
    assert given.absent == "fallback"
