"""How modules are called is found, and what cannot be found is said with what would work."""

import re

import pytest
import torch
from torch import Tensor

from tests.audit.made import subject
from tests.audit.planted import LengthFirst, Right
from xformer.audit.finding import forward_parameters
from xformer.errors import ConfigError


@pytest.mark.parametrize(
    ("path", "arguments", "found"),
    [
        (
            "torch.nn.MultiheadAttention",
            (),
            {"input": "x, x, x as length batch width", "padding": "key_padding_mask (True = ignore)"},
        ),
        ("torch.nn.TransformerEncoderLayer", ("batch_first=true",), {"input": "x as batch length width"}),
        ("torch.nn.GRU", ("hidden_size=8",), {"input": "x as length batch width", "state": "hx="}),
        ("Right", (), {"padding": "mask (True = keep)", "state": "cache=, return_cache=True"}),
        (
            "LengthFirst",
            (),
            {
                "input": "x as length batch width",
                "output": "the return value['hidden']",
                "padding": "mask (True = ignore)",
            },
        ),
        ("Recurrent", (), {"padding": "no argument takes it", "state": "step(token, state)"}),
        ("linformer.LinformerSelfAttention", (), {"padding": "no argument takes it"}),
        ("performer_pytorch.FastAttention", ("dim_heads=8",), {"input": "x, x, x as batch heads length width"}),
        (
            "transformers.models.llama.modeling_llama.LlamaAttention",
            (),
            {
                "padding": "attention_mask (4-D, added to the scores)",
                "position_embeddings": "made by LlamaRotaryEmbedding",
                "state": "past_key_values=",
            },
        ),
        (
            "transformers.LlamaModel",
            (),
            {"input": "inputs_embeds=x as batch length width", "padding": "attention_mask (1 = keep)"},
        ),
        ("xformer.Full", ("causal=true",), {"padding": "mask (a Mask of xformer)", "state": "state="}),
    ],
)
def test_it_finds(path: str, arguments: tuple[str, ...], found: dict[str, str]) -> None:
    assert found.items() <= subject(path, *arguments).calling.describe().items()


def test_what_is_said_wins() -> None:
    made = subject("Right", mask="mask", mask_form="True = ignore", state=False)
    assert made.calling.mask == ("mask", "True = ignore")
    assert not made.at(0).steps
    assert subject("Right", mask=False).calling.mask is None


def test_causality_is_passed_where_it_is_asked_for() -> None:
    made = subject("torch.nn.MultiheadAttention", causal=True)
    assert made.calling.causal == ("attn_mask", "True = blocked")


def test_a_function_of_the_user_calls_what_cannot_be_called() -> None:
    made = subject("NeedsMemory", call="tests.audit.planted:cross", width=8)
    module = made.at(0)
    x = module.draw(2, 3)
    torch.testing.assert_close(module(x), x, rtol=0, atol=0)


def test_only_what_runs_in_float32_is_measured_in_it() -> None:
    assert subject("tests.audit.test_finding.Only32").dtype == torch.float32
    assert subject("Right").dtype == torch.float64


class Only32(Right):
    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        if query.dtype == torch.float64:
            raise TypeError("this kernel takes no float64")
        return super().scores(query, key)


class Wraps(LengthFirst):
    def forward(self, *args: Tensor, extra: None = None, **kwargs: Tensor) -> dict[str, Tensor]:
        return super().forward(*args, **kwargs)


def test_what_forward_hands_on_is_what_its_base_takes() -> None:
    assert [*forward_parameters(Wraps())] == ["x", "mask", "extra"]


@pytest.mark.parametrize(
    ("path", "options", "call", "says"),
    [
        ("NeedsMemory", {}, None, "its forward also needs memory; write a function of (module, x, valid)"),
        ("torch.nn.Embedding", {"width": 4}, None, "cannot be called with x of (batch, length, 4)"),
        ("Right", {"breadth": 3}, None, "adapter.breadth is not an option of the adapter; these are width, layout,"),
        ("Right", {"layout": "wide"}, None, "adapter.layout=wide must be one of 'batch length width'"),
        ("Right", {"mask": "padding"}, None, "adapter.mask=padding is not an argument of forward: x, mask,"),
        ("Right", {"mask_form": "x"}, None, "adapter.mask_form=x must be one of 'True = ignore'"),
        (
            "Both",
            {"causal": True},
            None,
            "adapter.causal=true: no argument of tests.audit.planted.Both makes it causal",
        ),
        ("Right", {"state": "mask"}, None, "adapter.state=mask: tests.audit.planted.Right cannot be called with it"),
        ("Right", {}, "tests.audit.planted:one_number", "one_number returns () for x of (3, 6, 16); it must return"),
        ("Right", {}, "tests.audit.planted:nothing", "tests.audit.planted has no nothing"),
    ],
)
def test_bad_input_is_one_sentence(path: str, options: dict[str, object], call: str | None, says: str) -> None:
    arguments = ("num_embeddings=3", "embedding_dim=4") if "Embedding" in path else ()
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        subject(path, *arguments, call=call, **options)
    assert "\n" not in str(caught.value)
