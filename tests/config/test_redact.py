"""Nothing secret stays behind, and nothing ordinary is taken for it."""

import io
import json
import logging
import os
import re
import string
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from xformer.config.compose import cell_directory_name
from xformer.config.groups import CONF
from xformer.config.redact import (
    MASK,
    RedactedStream,
    RedactingFormatter,
    is_secret,
    redact,
    redact_file,
    resolved_config,
)
from xformer.runs.summary import Summary, summary_as_json

SECRET_KEYS = [
    "api_key", "logger.wandb.api_key", "password", "db.password", "HF_TOKEN", "hub_token", "token", "client_secret",
    "credentials", "aws_secret_access_key", "apiKey", "privateKey", "data.auth_token", "passphrase", "OPENAI_API_KEY",
]  # fmt: skip
ORDINARY = [
    "data.loader.tokens_per_batch", "tokenizer", "tokens", "flops_per_token", "key_value_heads", "unk_token",
    "mask_token",
    "attention", "monkey", "task.class_weights", "SSH_AUTH_SOCK", "GOOGLE_CREDENTIALS_FILE", "author", "monitor.name",
]  # fmt: skip


def keys_of(node: Any, path: str = "") -> list[str]:
    if isinstance(node, DictConfig):
        return [name for key in node for name in [f"{path}{key}", *keys_of(node._get_node(key), f"{path}{key}.")]]
    return []


YAML_KEYS = sorted({key for file in CONF.rglob("*.yaml") for key in keys_of(OmegaConf.load(file))})
VALUES = st.text(string.ascii_letters + string.digits + "-_.+/", min_size=6, max_size=40).filter(
    lambda value: value.lower() not in {"null", "none", "true", "false"}
)


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_a_key_that_says_so_is_secret(key: str) -> None:
    assert is_secret(key)
    assert is_secret(f"+{key}")


@pytest.mark.parametrize("key", ORDINARY)
def test_an_ordinary_key_is_not(key: str) -> None:
    assert not is_secret(key)


def test_no_key_of_any_yaml_or_summary_is_taken_for_a_secret() -> None:
    assert len(YAML_KEYS) > 300
    assert not [key for key in [*YAML_KEYS, *vars(Summary("finished"))] if is_secret(key)]


@given(key=st.sampled_from(YAML_KEYS), value=st.text(string.printable, max_size=40).filter(lambda v: "=" not in v))
def test_an_ordinary_override_comes_through_whole(key: str, value: str) -> None:
    assume_no_login = re.sub(r"\w://", "", re.sub(r"[:\"']", "", value))
    assert redact(f"{key}={assume_no_login}") == f"{key}={assume_no_login}"
    assert redact({key: assume_no_login}) == {key: assume_no_login}


@given(
    key=st.sampled_from(SECRET_KEYS), value=VALUES, others=st.lists(st.sampled_from(YAML_KEYS), max_size=3),
    form=st.sampled_from(
        ["{key}={value}", "{others}{key}={value}", "refused: '{key}={value}' is no key", '{{"{key}": "{value}"}}',
         "{{'{key}': '{value}', 'seed': 1}}", "['+{key}={value}']"]
    ),
)  # fmt: skip
def test_a_planted_secret_is_always_masked(key: str, value: str, others: list[str], form: str) -> None:
    text = form.format(key=key, value=value, others="".join(f"{other}=1," for other in others))
    shown = redact(text)
    assert MASK in shown
    assert value not in shown.replace(key, "")
    assert redact({"a": [{key: value}]}) == {"a": [{key: MASK}]}


@given(before=st.text(max_size=20), after=st.text(max_size=20), value=VALUES)
def test_the_value_of_a_secret_variable_is_masked_wherever_it_stands(before: str, after: str, value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLANTED_TOKEN", value)
        shown = redact(f"{before}{value}{after}")
    assert "${oc.env:PLANTED_TOKEN}" in shown or MASK in shown
    assert value not in shown.replace("${oc.env:PLANTED_TOKEN}", "").replace(MASK, "") or value in before + after


def test_a_variable_with_an_ordinary_name_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATASET", "wikitext-103")
    assert redact("data.source.files=wikitext-103/a.txt") == "data.source.files=wikitext-103/a.txt"


def test_what_asks_for_a_secret_is_none() -> None:
    for text in ("api_key=${oc.env:WANDB_API_KEY}", "password=null", "password=???", "https://host:80/path"):
        assert redact(text) == text
    assert redact({"password": None, "token": True}) == {"password": None, "token": True}


def test_prose_is_left_alone() -> None:
    text = "The secret: nobody knew. A token: a word.\nKING: password: what is it?"
    assert redact(text) == text


def test_the_password_of_an_address_is_masked() -> None:
    assert redact("data.source.files=https://me:hunter2@host/x") == f"data.source.files=https://me:{MASK}@host/x"


def test_a_summary_keeps_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PASSWORD", "hunter2-5d41")
    summary = Summary("failed", error="x/hunter2-5d41 is missing", overrides=["+a.api_key=zzz111", "seed=1"])
    summary.flops_per_token, summary.warm_start = 3.0, {"run": "/home/hunter2-5d41"}
    kept = summary_as_json(summary)
    assert kept["error"] == "x/${oc.env:MY_PASSWORD} is missing"
    assert kept["overrides"] == [f"+a.api_key={MASK}", "seed=1"]
    assert kept["warm_start"] == {"run": "/home/${oc.env:MY_PASSWORD}"}
    assert kept["flops_per_token"] == 3.0


def test_a_literal_in_the_configuration_is_masked() -> None:
    found = resolved_config(OmegaConf.create({"a": {"api_key": "zzz111"}, "tokens": 3}))
    assert found == {"a": {"api_key": MASK}, "tokens": 3}


def test_a_cell_is_named_without_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "tok-998877")
    assert cell_directory_name("attention=full,+logger.wandb.api_key=zzz111,seed=0") == "attention=full,seed=0"
    assert "998877" not in cell_directory_name("data.source.files=x-tok-998877,seed=0")


def test_a_log_record_is_redacted_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "tok-998877")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(RedactingFormatter("%(message)s"))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    try:
        raise ValueError("tok-998877 is no file")
    except ValueError:
        logger.exception("with api_key=%s", "zzz111")
    assert "Traceback" in stream.getvalue()
    assert "${oc.env:MY_TOKEN} is no file" in stream.getvalue()
    assert "zzz111" not in stream.getvalue()
    assert "998877" not in stream.getvalue()


def test_a_stream_is_itself_but_for_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "tok-998877")
    stream = io.StringIO()
    redacted = RedactedStream(stream)
    print("one tok-998877", "api_key=zzz111", file=redacted, flush=True)
    redacted.writelines(["two tok-998877\n"])
    assert stream.getvalue() == f"one ${{oc.env:MY_TOKEN}} api_key={MASK}\ntwo ${{oc.env:MY_TOKEN}}\n"
    assert redacted.isatty() is stream.isatty()


def test_a_file_is_rewritten_only_where_it_holds_one(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# kept\nseed: 1\n")
    (tmp_path / "b.yaml").write_text("hydra:\n  overrides: ['+api_key=zzz111', '${now:%Y}']\n")
    for file in tmp_path.glob("*"):
        redact_file(file)
    redact_file(tmp_path / "absent.yaml")
    assert (tmp_path / "a.yaml").read_text() == "# kept\nseed: 1\n"
    assert OmegaConf.to_container(OmegaConf.load(tmp_path / "b.yaml"), resolve=False) == {
        "hydra": {"overrides": [f"+api_key={MASK}", "${now:%Y}"]}
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.yaml", "b.yaml"]


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
    plain = resolved_config(given)
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
    assert resolved_config(given) == {
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
    resolved_config(given)
    assert OmegaConf.to_container(given, resolve=False) == before
    assert given.direct == os.environ["TEST_SECRET"]
    assert given.absent == "fallback"
