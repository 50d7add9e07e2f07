"""A training step asks the device for nothing: whoever waits for an answer leaves it idle."""

from contextlib import nullcontext
from itertools import product
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch.utils._python_dispatch import TorchDispatchMode

from tests.architecture import tiny
from tests.conftest import ComposeJob
from xformer.architecture.decoder import Decoder
from xformer.attention.kernels.block_sparse.attention import PositionOrder
from xformer.benchmark.models import TrainingStep, Workload, build_benchmark_model, composed_config
from xformer.config import compatibility
from xformer.config.plan import Plan
from xformer.config.validate import CONF, groups
from xformer.core import devices
from xformer.data.batch import LanguageModelingBatch
from xformer.data.facts import Facts, ImageFacts
from xformer.errors import IncompatibleError
from xformer.runs.job import choices

CAUSAL = ("full", "local", "sparse", "bigbird", "performer", "additive", "multiplicative")
BOTH_WAYS = (*CAUSAL, "linformer")
POSITIONS = ("sinusoidal", "rotary", "alibi", "t5", "relative", "transformer_xl")


class Unanswering(TorchDispatchMode):
    """Together with the meta device, which has no values to tell: refuses the copies that are waited for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("device", args[0].device) != args[0].device:
            assert kwargs.get("non_blocking"), f"waits for {tuple(args[0].shape)} to be copied"
        return func(*args, **kwargs)


@pytest.mark.parametrize(
    ("task", "attention", "position"),
    [
        *product(["language_modeling"], CAUSAL, ["learned"]),
        *product(["masked_language_modeling"], BOTH_WAYS, ["learned"]),
        *product(["language_modeling"], ["full"], POSITIONS),
        *product(["language_modeling"], ["local", "sparse", "performer"], ["alibi", "t5"]),
    ],
)
def test_a_step_of_training_does_not_wait(
    task: str, attention: str, position: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the tokens to the clipped gradients, on a device of which nothing can be read."""
    workload = Workload(vocabulary=64, length=32, batch=2)
    model, plan = build_benchmark_model(
        composed_config([f"task={task}", "size=tiny", f"attention={attention}", f"position={position}"]), workload
    )
    model.to("meta")
    step = TrainingStep(
        model, lambda batch: model.step(model.prepare(batch)).loss, plan.optimizer(model, True), workload
    )
    step.batch = LanguageModelingBatch(step.batch.tokens.to("meta"), step.batch.labels.to("meta"))
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)  # meta is not known to autocast
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    step.gradients()  # what is made once
    with Unanswering():
        step.gradients()


@pytest.mark.parametrize("stage", ["val", "test"])
@pytest.mark.parametrize("task", ["classification", "language_modeling", "seq2seq", "image_classification"])
def test_a_batch_of_evaluation_does_not_wait(
    task: str, stage: str, compose_job: ComposeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss, metrics and the weight of the batch in their means stay on the device until all are logged."""
    plan = Plan.of(compose_job("debug=fast", f"task={task}", "size=tiny").config)
    data = plan.load_data()
    model = plan.build_task().eval().to("meta")
    batch = data.transfer_batch_to_device(next(iter(data.val_dataloader())), torch.device("meta"), 0)
    logged: list[dict[str, Any]] = []
    monkeypatch.setattr(model, "log", lambda name, value, **options: logged.append(options))
    monkeypatch.setattr(model, "log_dict", lambda metrics, **options: logged.append(options))
    with Unanswering():
        model._evaluate(batch, stage, getattr(model, f"{stage}_metrics"))
    assert all(isinstance(options["batch_size"], torch.Tensor) for options in logged)


FACTS = Facts(
    vocabulary=64, length=16, classes=4, class_counts=[4, 3, 2, 1], padding=0, begin=1, end=2,
    image=ImageFacts(channels=1, height=8, width=8, mean=[0.5], std=[0.5]),
)  # fmt: skip


QUICK = ("classification", "seq2seq")


def on_meta(batch: Any) -> Any:
    """Two of the item of a batch, with a mask wherever there can be one, on the device that has no values."""
    found = batch._asdict()
    for name in [name for name in found if name.endswith("padding_mask")]:
        found[name] = found[name.replace("padding_mask", "tokens")] == 0
    return batch._replace(**{name: torch.cat((x, x)).to("meta") for name, x in found.items() if x is not None})


@pytest.mark.parametrize(
    ("task", "attention", "position"),
    [
        pytest.param(task, *choice, marks=[] if task in QUICK else pytest.mark.slow)
        for task in groups()["task"]
        for choice in (*product(groups()["attention"], ["learned"]), *product(["full"], groups()["position"]))
    ],
)
def test_the_gradients_of_every_task_do_not_wait(
    task: str, attention: str, position: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every attention and position scheme that goes with it, masks of padding included."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        typed = [f"task={task}", "size=tiny", f"attention={attention}", f"position={position}"]
        config = compose("train", overrides=typed, return_hydra_config=True)
    try:
        compatibility.check_compatibility(config, choices(config.hydra.runtime.choices))
    except IncompatibleError:
        return
    plan = Plan.of(config)
    plan.data.facts = FACTS
    model = plan.build_task()
    batch: Any = on_meta(model.example(FACTS))
    model.to("meta")
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)  # meta is not known to autocast
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())

    def gradients() -> None:
        torch.autograd.backward(model.step(model.prepare(batch)).loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)

    gradients()  # what is made once
    with Unanswering():
        gradients()


@pytest.mark.gpu
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    ("attention", "position"),
    [
        *product(("full", "local", "sparse"), ("learned", "rotary", "alibi", "t5")),
        ("full", "relative"),
        ("full", "transformer_xl"),
    ],
)
def test_forward_and_backward_do_not_wait(attention: str, position: str, padded: bool) -> None:
    model = tiny.stack(Decoder, attention=attention, position=position).cuda()
    tokens = torch.randint(tiny.VOCABULARY, (2, tiny.LENGTH), device="cuda")
    real = torch.arange(tiny.LENGTH, device="cuda") < torch.tensor([[tiny.LENGTH], [3]], device="cuda")
    model(tokens, real if padded else None).sum().backward()  # what is made once
    with devices.forbid_synchronization():
        model(tokens, real if padded else None).sum().backward()


@pytest.mark.parametrize("padded", [False, True])
def test_the_order_of_counted_positions_is_the_one_that_is_read(padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    positions, x = torch.arange(6)[None], torch.randn(2, 1, 6, 3)
    real = torch.arange(6) < torch.tensor([[6], [4]]) if padded else None
    read = PositionOrder(positions, real)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "equal", None)
        patched.setattr(torch.Tensor, "max", None)
        known = PositionOrder(positions, real, consecutive=True)
    assert known.span == read.span
    assert torch.equal(known.by_position(x), read.by_position(x))
    assert torch.equal(known.by_token(x), read.by_token(x))


def test_counted_distances_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.stack(Decoder, attention="full", position="transformer_xl")
    tokens = torch.zeros(2, 5, dtype=torch.long)
    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "aminmax", None)
        patched.setattr(torch.Tensor, "__int__", None)
        model(tokens).sum().backward()
