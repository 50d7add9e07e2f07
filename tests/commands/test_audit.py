"""`xformer audit` prints a card, writes it, and fails where what is required does not hold."""

import json
from pathlib import Path

import pytest

from tests.conftest import Command

QUICK = ("--seeds", "1", "--longest", "0")


def test_it_prints_and_writes_the_card(xformer: Command, tmp_path: Path) -> None:
    words = ("torch.nn.MultiheadAttention", "embed_dim=16", "num_heads=2", "adapter.causal=true", *QUICK)
    code, printed, errors = xformer("audit", *words, "--output", tmp_path / "cards", "--require", "causal,padding")
    assert (code, errors) == (0, "")
    page = (tmp_path / "cards" / "torch.nn.MultiheadAttention.md").read_text()
    assert page in printed
    assert "xformer audit torch.nn.MultiheadAttention embed_dim=16 num_heads=2 adapter.causal=true" in page
    assert "attn_mask (True = blocked)" in page
    read = json.loads((tmp_path / "cards" / "torch.nn.MultiheadAttention.json").read_text())
    assert read["arguments"] == {"embed_dim": 16, "num_heads": 2}


def test_it_fails_where_what_is_required_does_not_hold(xformer: Command) -> None:
    code, printed, errors = xformer("audit", "torch.nn.MultiheadAttention", *QUICK, "--require=causal")
    assert code == 1
    assert "# `torch.nn.MultiheadAttention`" in printed
    assert errors.startswith(
        "error: torch.nn.MultiheadAttention does not satisfy `causal`, which --require demands: no,"
    )
    assert len(errors.splitlines()) == 1


def test_a_module_of_the_user_s_own_is_found_where_the_command_runs(
    xformer: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_mixer.py").write_text(
        "import torch\n"
        "class Mean(torch.nn.Module):\n"
        "    def forward(self, x, other):\n"
        "        return x.cumsum(1) + other\n"
        "def call(module, x, valid):\n"
        "    return module(x, torch.zeros_like(x))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    code, printed, errors = xformer("audit", "own_mixer.Mean", "--call", "own_mixer:call", *QUICK, "--require=causal")
    assert (code, errors) == (0, "")
    assert "own_mixer:call" in printed


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nosuchpackage.Class"], "there is no package nosuchpackage"),
        (["torch.nn.GRU", "adapter.breadth=3"], "adapter.breadth is not an option"),
        (["torch.nn.GRU", "--require", "fast"], "--require fast is not a contract"),
        (["torch.nn.GRU", "--seeds", "0"], "pass 1 seed or more"),
        (["torch.nn.TransformerDecoderLayer"], "its forward also needs memory"),
    ],
)
def test_bad_input_is_one_sentence(xformer: Command, words: list[str], says: str) -> None:
    code, _, errors = xformer("audit", *words)
    assert code == 1
    assert says in errors
    assert len(errors.splitlines()) == 1
    assert "Traceback" not in errors


@pytest.mark.parametrize("where", ["imported", "built", "called"])
def test_a_module_that_ends_the_process_is_a_sentence(
    where: str, xformer: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = {place: "raise SystemExit(7)" if place == where else "pass" for place in ("imported", "built", "called")}
    (tmp_path / f"ends_when_{where}.py").write_text(
        "import torch\n"
        f"{ends['imported']}\n"
        "class Exits(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        f"        {ends['built']}\n"
        "    def forward(self, x):\n"
        f"        {ends['called']}\n"
        "        return x\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    code, _, errors = xformer("audit", f"ends_when_{where}.Exits", *QUICK)
    assert code == 1
    assert errors.startswith(f"error: ends_when_{where}")
    assert "SystemExit: 7" in errors
    assert len(errors.splitlines()) == 1
