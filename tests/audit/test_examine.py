"""What is planted is found, by the contract that it breaks and no other; what is right raises no alarm."""

import contextlib
import io
from functools import partial
from typing import Any

import pytest
import torch

from tests.audit import planted
from tests.audit.made import subject
from xformer.audit import dependence, determinism, padding, stepping
from xformer.audit.card import CONTRACTS, Card
from xformer.audit.examine import examine, quietly
from xformer.audit.numbers import EXTREMES, extreme

PLANTED: dict[str, set[str]] = {
    "NextToken": {"causal"},
    "FarFuture": {"causal"},
    "DetachedMaximum": {"causal", "padding-right"},  # where no query of the row sees padding, its maximum does
    "ChosenByTheFuture": {"causal", "padding-right", "padding-left"},
    "FutureInTraining": {"causal"},
    "Unmasked": {"padding-right", "padding-left"},
    "UnmaskedCausal": {"padding-left"},
    "ValuesAlone": {"padding-right", "padding-left"},
    "CountsPadding": {"padding-right", "padding-left"},
    "MaskOfBatchesAlone": {"padding-right", "padding-left"},
    "NoNumbers": {"padding-gradient"},
    "BatchMean": {"rows", "rows-train", "batch-size"},
    "BatchNorm": {"causal", "rows-train"},  # in train mode its mean is over later tokens too
    "DropsInEval": {"deterministic"},
    "Counter": {"deterministic"},
    "FreshGenerator": {"reproducible"},
    "ForgetsTheScale": {"step"},
    "ForgetsTheOldest": {"step"},
    "Overflows": {"finite", "padding-gradient"},  # a query that may read nothing divides by zero
}
BIDIRECTIONAL = {name for name in PLANTED if issubclass(getattr(planted, name), planted.Both)}
MAY_FOLLOW: dict[str, set[str]] = {
    "BatchMean": {"padding-right", "padding-left", "finite"},  # of which a row alone is a part; a row alone is nothing
    "DropsInEval": {"padding-right", "padding-left", "step", "batch-size"},  # other shapes draw other numbers
    "Counter": {"reproducible", "step"},
    "FarFuture": {"padding-left"},
    "DetachedMaximum": {"padding-left"},
    "ChosenByTheFuture": {"step"},
}


def failed(card: Card) -> set[str]:
    return {finding.contract for finding in card.findings if finding.verdict == "no"}


def shown(snippet: str) -> float:
    """What a program prints last, run by itself."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), torch.random.fork_rng():
        exec(snippet, {})
    return float(printed.getvalue().split()[-1])


@pytest.mark.parametrize(("name", "breaks"), PLANTED.items(), ids=PLANTED)
def test_what_is_planted_is_found_and_its_program_shows_it(name: str, breaks: set[str]) -> None:
    card = examine(subject(name), seeds=2, longest=0)
    found = failed(card) - ({"causal"} if name in BIDIRECTIONAL else set())
    assert breaks <= found <= breaks | MAY_FOLLOW.get(name, set())
    for finding in card.findings:
        assert (finding.snippet is not None) == (finding.verdict == "no")
        if finding.snippet is not None:
            assert shown(finding.snippet) > 0, finding.detail


@pytest.mark.parametrize(
    ("name", "contract", "smallest"),
    [
        ("NextToken", "causal", "length 2, batch 1, seed 0"),
        ("FarFuture", "causal", "length 41, batch 1, seed 0"),
        ("FutureInTraining", "causal", "length 2, batch 1, seed 0, train mode"),
        ("Unmasked", "padding-right", "length 2, batch 1, seed 0"),
        ("BatchMean", "rows", "length 1, batch 2, seed 0"),
        ("ForgetsTheOldest", "step", "length 9, batch 1, seed 0"),
    ],
)
def test_the_failing_input_is_the_smallest_that_there_is(name: str, contract: str, smallest: str) -> None:
    assert smallest in examine(subject(name), seeds=1, longest=0).finding(contract).detail


RIGHT: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "causal": ("Right", (), {}),
    "both": ("Both", (), {}),
    "recurrent": ("Recurrent", (), {}),
    "window": ("Window", (), {}),
    "inside32": ("Inside32", (), {}),
    "length first": ("LengthFirst", (), {}),
    "torch attention": ("torch.nn.MultiheadAttention", ("embed_dim=16", "num_heads=2"), {}),
    "torch attention, causal": ("torch.nn.MultiheadAttention", ("embed_dim=16", "num_heads=2"), {"causal": True}),
    "torch block": ("torch.nn.TransformerEncoderLayer", ("d_model=16", "nhead=2", "dim_feedforward=32"), {}),
    "torch GRU": ("torch.nn.GRU", ("input_size=16", "hidden_size=16", "batch_first=true"), {}),
}
OURS = ("xformer.Performer", ("d_model=16", "num_heads=2", "features=8", "causal=true"), {})


@pytest.mark.parametrize(
    ("path", "arguments", "options"),
    [
        *(pytest.param(*case, id=name) for name, case in RIGHT.items()),
        pytest.param(*OURS, id="ours", marks=pytest.mark.slow),
    ],
)
def test_a_right_module_raises_no_alarm_over_fifty_seeds(
    path: str, arguments: tuple[str, ...], options: dict[str, Any]
) -> None:
    made = subject(path, *arguments, **options)
    masked, causal = made.calling.mask is not None, not path.endswith(("Both", "LengthFirst", "Layer"))
    causal = causal and (path != "torch.nn.MultiheadAttention" or bool(options))
    measures: list[Any] = [
        dependence.other_rows,
        partial(dependence.other_rows, train=True),
        dependence.batch_size,
        determinism.repeats,
        determinism.keeps_itself,
        partial(determinism.repeats, train=True, seeded=True),
        *(partial(extreme, kind=kind) for kind in EXTREMES),
    ]
    if causal:
        measures += [dependence.future, partial(dependence.future, train=True)]
    if masked or causal:
        measures += [partial(measure, side="right") for measure in (padding.content, padding.alone, padding.gradient)]
    if masked:
        measures += [partial(measure, side="left") for measure in (padding.content, padding.alone)]
    if made.at(0).steps and causal:
        measures += [stepping.stepping]
    with quietly():
        for seed in range(50):
            for measure in measures:
                found = measure(made, 9, 3, seed)
                assert not found.fails, (seed, measure, found)


def test_what_overflows_only_over_many_tokens_is_found() -> None:
    made = subject("OverflowsOverLong")
    assert not any(extreme(made, 9, 2, seed, kind=kind).fails for kind in EXTREMES for seed in range(3))
    found = examine(made, seeds=1, longest=0).finding("finite")
    assert found.verdict == "no"
    assert found.snippet is not None
    assert shown(found.snippet) > 0


def test_a_module_that_ends_the_process_has_no_such_lengths() -> None:
    made = subject("ExitsWhenCalled")
    assert made.lengths == tuple(range(1, 17))
    with pytest.raises(RuntimeError, match="SystemExit: 7"):
        made.at(0)(made.at(0).draw(1, 17))
    card = examine(made, seeds=1, longest=0)
    assert failed(card) == set()


def test_a_module_that_says_nothing_of_its_input_is_not_called_causal() -> None:
    card = examine(subject("Constant"), longest=0)
    assert {finding.verdict for finding in card.findings} == {"untested"}


def test_a_module_of_some_lengths_is_measured_at_those() -> None:
    card = examine(subject("Eights"), seeds=1, longest=0)
    assert failed(card) == set()
    assert "8, 16, 24, 32" in card.lengths


def test_every_contract_has_a_finding_and_generators_are_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    card = examine(subject("Window", "dim=8"), seeds=1, longest=0)
    assert [finding.contract for finding in card.findings] == list(CONTRACTS)
    made = subject("Window", "dim=8")
    torch.manual_seed(3)
    examine(made, seeds=1, longest=0)
    torch.testing.assert_close(torch.rand(2), expected, rtol=0, atol=0)


PACKAGES: dict[str, tuple[str, tuple[str, ...], dict[str, Any], set[str]]] = {
    "x-transformers": ("x_transformers.x_transformers.Attention", ("heads=2", "dim_head=8", "causal=true"), {}, set()),
    "x-transformers, decoder": (
        "x_transformers.Decoder",
        ("heads=2", "attn_dim_head=16", "rotary_pos_emb=true"),
        {},
        set(),
    ),
    "transformers": (
        "transformers.models.llama.modeling_llama.LlamaDecoderLayer",
        (),
        {"causal": True},
        set(),
    ),
    "transformers, without its mask": (
        "transformers.models.llama.modeling_llama.LlamaDecoderLayer",
        (),
        {},
        {"causal"},
    ),
    "transformers, a model": ("transformers.LlamaModel", (), {}, set()),
    "linformer": (
        "linformer.LinformerSelfAttention",
        ("k=8",),
        {},
        {"causal", "padding-right", "padding-left"},
    ),
    "performer-pytorch": (
        "performer_pytorch.SelfAttention",
        ("heads=2", "dim_head=8", "causal=true", "nb_features=16"),
        {},
        {"causal", "padding-right", "padding-left"},
    ),
    "local-attention": ("local_attention.LocalMHA", ("causal=true", "dim_head=8", "heads=2"), {}, {"step"}),
}


@pytest.mark.parametrize(("path", "arguments", "options", "breaks"), PACKAGES.values(), ids=PACKAGES)
def test_packages_of_others(path: str, arguments: tuple[str, ...], options: dict[str, Any], breaks: set[str]) -> None:
    card = examine(subject(path, *arguments, **options), seeds=1, longest=0)
    assert failed(card) == breaks
    for finding in card.findings:
        if finding.snippet is not None:
            with quietly():
                assert shown(finding.snippet) > 0
