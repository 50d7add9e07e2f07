"""What is compiled, how often, and that it changes no number."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.conftest import ComposeJob
from tests.contracts.variants import ENCODERS, MIXERS, TOYS
from xformer.config.plan import Plan
from xformer.config.validate import validate
from xformer.data.batch import IGNORED, ClassificationBatch, LanguageModelingBatch, Seq2SeqBatch
from xformer.errors import ConfigError
from xformer.runs.open_run import open_run
from xformer.tasks.base import Outcome, Task
from xformer.training import compilation
from xformer.training.compilation import LENGTHS, RecordedStep, pad_to_recorded_length
from xformer.training.run import run

ROOT = Path(__file__).parents[2]
SMALL = ["debug=fast", "size=tiny", "logger=csv", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false"]
SIZES = [
    "data.generation.train_size=60",
    "data.generation.val_size=24",
    "data.generation.test_size=24",
    "data.loader.batch_size=4",
]
TEXT = ["data.block=32", "data.loader.batch_size=4"]
TASKS = {
    "classification": SIZES,
    "language_modeling": TEXT,
    "masked_language_modeling": TEXT,
    "seq2seq": SIZES,
    "image_classification": ["data.loader.batch_size=4", "task.augmentation.mixup.alpha=0.4"],
}
BREAK = {"local", "sparse", "bigbird"}
"""Their kernels loop over groups of blocks in Python, and are called as they are: one break for every layer's."""
CUTS = {"additive"}
"""Its scores are computed in as many pieces as there is memory for: each number of pieces is a graph."""
Counted = dict[str, Any]
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # the compiler's import


def counted(directory: Path, cache: Path, *cases: list[str]) -> list[Counted]:
    """What a compiler that only counts was asked for in each of several runs, from fit to sample."""
    command = [sys.executable, str(Path(__file__).with_name("counting.py")), str(directory)]
    command += [";".join([*SMALL, f"cache={cache}", *case]) for case in cases]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"graphs"')]


def test_one_graph_trains_on_batches_of_all_lengths(tmp_path: Path, cache: Path) -> None:
    """And none is made in validation and test, or to write a sample."""
    setting = ["trainer.max_steps=8", "trainer.val_check_interval=4", *SIZES]
    eager, compiled = counted(tmp_path, cache, setting, ["compile=true", *setting])
    assert eager["graphs"] == 0
    assert compiled["lengths"] >= 5
    assert (compiled["graphs"], compiled["elsewhere"], compiled["breaks"]) == (1, 0, {})
    assert compiled["losses"] == eager["losses"]


@pytest.mark.slow
def test_every_task_trains_with_one_graph(tmp_path: Path, cache: Path) -> None:
    cases = [["compile=true", f"task={task}", *sizes] for task, sizes in TASKS.items()]
    for case, found in zip(cases, counted(tmp_path, cache, *cases), strict=True):
        assert (found["graphs"], found["elsewhere"], found["breaks"]) == (1, 0, {}), case


@pytest.mark.slow
def test_batches_that_vary_in_number_and_length_train_with_one_graph(tmp_path: Path, cache: Path) -> None:
    (found,) = counted(tmp_path, cache, ["compile=true", *SIZES[:3], "data.loader.tokens_per_batch=300"])
    assert (found["graphs"], found["elsewhere"]) == (1, 0)


@pytest.mark.slow
def test_every_attention_trains_with_few_graphs(tmp_path: Path, cache: Path) -> None:
    """One, or where kernels are called as they are a number that does not grow with the lengths."""
    names = ENCODERS
    cases = [["compile=true", f"attention={name}", "trainer.max_steps=12", *SIZES] for name in names]
    for name, found in zip(names, counted(tmp_path, cache, *cases), strict=True):
        assert found["elsewhere"] == 0
        if name in BREAK:
            assert found["graphs"] <= 24, name
            assert all("disable" in reason for reason in found["breaks"]), name
        else:
            assert found["breaks"] == {}, name
            assert found["graphs"] <= (3 if name in CUTS else 1), name


@pytest.mark.slow
def test_a_compiled_run_resumes_exactly_and_gives_way_to_an_eager_one(tmp_path: Path, cache: Path) -> None:
    setting = ["schedule=constant", "trainer.val_check_interval=3", *SIZES]
    whole, half = f"hydra.run.dir={tmp_path / 'whole'}", f"hydra.run.dir={tmp_path / 'half'}"
    other = f"hydra.run.dir={tmp_path / 'other'}"
    uninterrupted, first, again, before, eager = counted(
        tmp_path,
        cache,
        ["compile=true", "trainer.max_steps=6", whole, *setting],
        ["compile=true", "trainer.max_steps=3", half, *setting],
        ["compile=true", "trainer.max_steps=6", "resume=true", half, *setting],
        ["compile=true", "trainer.max_steps=3", other, *setting],
        ["trainer.max_steps=6", "resume=true", other, *setting],
    )
    assert first["losses"] + again["losses"] == uninterrupted["losses"]
    assert before["losses"] + eager["losses"] == uninterrupted["losses"]
    assert eager["graphs"] == 0
    weights = [open_run(tmp_path / name).task.state_dict() for name in ("whole", "half", "other")]
    assert not any("_orig_mod" in key for key in weights[0])
    for one in weights[1:]:
        assert_close(one, weights[0], rtol=0, atol=0)


def test_a_run_with_cuda_graphs_is_refused_where_it_cannot_be(compose_job: ComposeJob) -> None:
    graphs = [*SMALL, *SIZES, "compile=reduce-overhead"]
    with pytest.raises(ConfigError, match=r"compile=reduce-overhead .* trains on cpu: compile=true"):
        run(compose_job(*graphs))
    with pytest.raises(ConfigError, match=r"trainer\.accumulate_grad_batches=2 .* compile=true would work"):
        run(compose_job(*graphs, "trainer.accumulate_grad_batches=2"))
    with pytest.raises(ConfigError, match=r"data\.loader\.tokens_per_batch=300 .* data\.loader\.batch_size"):
        run(compose_job(*graphs, "data.loader.tokens_per_batch=300"))
    with pytest.raises(ConfigError, match=r"compile=fast .*reduce-overhead"):
        validate(compose_job("compile=fast").config)


def test_a_processor_without_a_compiler_is_told_so(compose_job: ComposeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"compile=true needs a C\+\+ compiler"):
        run(compose_job(*SMALL, *SIZES, "compile=true"))


TOKEN_MIXERS = [*(name for name in MIXERS if name not in TOYS), "hybrid"]
COMPARED = """
import json, sys
import torch
from torch.testing import assert_close
from xformer.config.plan import Plan
from xformer.runs.job import Job
from xformer.training.compilation import compile_step

for overrides in json.loads(sys.argv[1]):
    job = Job.compose(overrides)
    plan = Plan.read(job.config, job.choices)
    data, found = plan.load_data(), []
    batch = next(iter(data.train_dataloader()))
    for mode in (False, True):
        task = plan.build_task()
        torch._dynamo.reset()
        compile_step(task, data, mode, torch.device("cpu"))
        outcome = (task.compiled_step or task.training_outcome)(batch)
        outcome.loss.backward()
        assert (task.compiled_step is not None) == mode
        found.append([outcome.loss, *(parameter.grad for parameter in task.parameters())])
    assert all(gradient is not None and gradient.any() for gradient in found[0])
    assert_close(found[1], found[0], rtol=1e-3, atol=1e-6)
    print("equal", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", TOKEN_MIXERS)
def test_a_compiled_step_of_a_mixer_has_the_loss_and_gradients_of_an_eager_one(name: str, cache: Path) -> None:
    """In a process of its own, as what checks the shapes in tests cannot be compiled; over two chunks of tokens."""
    layers = ["attention.layers=[gated_deltanet,full]"] if name == "hybrid" else []
    sizes = [
        "size=tiny",
        f"size.layers={1 + bool(layers)}",
        "architecture.dropout=0.0",
        "data.block=70",
        "data.loader.batch_size=2",
    ]
    case = ["task=language_modeling", f"attention={name}", *layers, *sizes, f"cache={cache}"]
    code = [sys.executable, "-c", COMPARED, json.dumps([case])]
    found = subprocess.run(code, capture_output=True, text=True, cwd=ROOT, timeout=900)
    assert (found.returncode, found.stdout.splitlines()[-1:]) == (0, ["equal"]), found.stderr


def _classified(width: int) -> ClassificationBatch:
    tokens = torch.randint(1, 9, (2, width))
    return ClassificationBatch(tokens, torch.arange(width) < torch.tensor([[width], [1]]), torch.zeros(2).long())


@settings(max_examples=15)
@given(limit=st.integers(1, 300), data=st.data())
def test_batches_are_filled_up_to_few_lengths(limit: int, data: st.DataObject) -> None:
    limits = {"padding_mask": limit}
    widths = {
        width: pad_to_recorded_length(_classified(width), limits, 0).tokens.shape[1] for width in range(limit, 0, -3)
    }
    assert len(set(widths.values())) <= LENGTHS
    assert widths[limit] == limit
    assert all(0 <= filled - width < limit / LENGTHS + 8 for width, filled in widths.items())
    batch = _classified(data.draw(st.integers(1, limit)))
    filled = pad_to_recorded_length(batch, limits, 5)
    own = batch.tokens.shape[1]
    assert torch.equal(filled.tokens[:, :own], batch.tokens)
    assert torch.equal(filled.padding_mask[:, :own], batch.padding_mask)
    assert (filled.tokens[:, own:] == 5).all()
    assert not filled.padding_mask[:, own:].any()
    assert filled.labels is batch.labels


@given(st.integers(1, 40), st.integers(1, 20))
def test_source_and_target_are_filled_up_together(source: int, target: int) -> None:
    real = torch.ones(2, source).bool(), torch.ones(2, target).bool()
    batch = Seq2SeqBatch(real[0].long(), real[0], real[1].long(), real[1], real[1].long(), ["a", "b"])
    filled = pad_to_recorded_length(batch, {"source_padding_mask": 40, "target_padding_mask": 20}, 7)
    assert filled.source_tokens.shape == filled.source_padding_mask.shape
    assert filled.target_tokens.shape == filled.target_padding_mask.shape == filled.labels.shape
    assert filled.target_tokens.shape[1] == min(20, filled.source_tokens.shape[1])
    assert (filled.labels[:, target:] == IGNORED).all()
    assert filled.references == ["a", "b"]


def test_what_has_no_padding_is_left_as_it_is() -> None:
    batch = LanguageModelingBatch.example(9)
    assert pad_to_recorded_length(batch, {"padding_mask": 16}, 0) is batch
    unpadded = ClassificationBatch.example(9)
    assert pad_to_recorded_length(unpadded, {"padding_mask": 16}, 0) is unpadded


def _built(compose_job: ComposeJob, *overrides: str) -> tuple[Task, Any, Any]:
    plan = Plan.of(compose_job(*SMALL, *SIZES, "architecture.dropout=0.0", *overrides).config)
    data = plan.load_data()
    task = plan.build_task()
    limits = RecordedStep(task.step, task, 0).limits
    batch = next(
        batch
        for batch in data.train_dataloader()
        if pad_to_recorded_length(batch, limits, 0)[0].shape != batch[0].shape
    )
    return task, batch, data


@pytest.mark.parametrize("overrides", [["task=seq2seq"], *([f"attention={name}"] for name in ENCODERS)], ids=str)
def test_filling_up_changes_no_loss_and_no_gradient(overrides: list[str], compose_job: ComposeJob) -> None:
    task, batch, data = _built(compose_job, *overrides)
    step = RecordedStep(task.step, task, data.spec.padding)
    found = []
    for compute in (task.step, step):
        task.zero_grad()
        loss = compute(batch).loss
        loss.backward()
        found.append((loss, [parameter.grad for parameter in task.parameters()]))
    assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_nothing_that_is_kept_lies_where_the_next_replay_writes(compose_job: ComposeJob) -> None:
    """As CUDA graphs do: one place for every loss, and for every gradient."""
    task, batch, data = _built(compose_job)
    place = torch.zeros(())
    gradients: list[list[Any]] = []

    def replayed(batch: ClassificationBatch) -> Outcome:
        gradients.append([parameter.grad for parameter in task.parameters()])
        outcome = task.step(batch)
        return outcome._replace(loss=place.copy_(outcome.loss.detach()))

    step = RecordedStep(replayed, task, data.spec.padding)
    first = step(batch).loss
    kept = first.clone()
    for parameter in task.parameters():
        parameter.grad = torch.ones_like(parameter)
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(torch.randn_like(parameter))
    second = step(batch).loss
    assert second != kept
    assert first == kept
    assert all(gradient is None for before in gradients for gradient in before)
