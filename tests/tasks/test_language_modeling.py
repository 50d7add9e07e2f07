"""The task against sums over the whole split, written out; renamed ids; lengths other than the training length."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn.functional import log_softmax

from tests.conftest import SMALL, ComposeJob
from xformer.config.plan import Plan
from xformer.data.base import DataModule
from xformer.errors import IncompatibleError
from xformer.runs.metrics_table import read_metrics
from xformer.runs.summary import read_summary
from xformer.tasks.language_modeling import LanguageModeling
from xformer.tokenizers.bpe import BPE
from xformer.training.run import run

PROSE = "".join(f"Line {number}: the quick brown fox jümps over the lazy dog.\n" for number in range(40))
QUIET = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*isinstance.treespec, LeafSpec:FutureWarning"
)


@pytest.fixture
def built(compose_job: ComposeJob, tmp_path: Path) -> Any:
    (tmp_path / "prose.txt").write_text(PROSE)

    def build(*overrides: str) -> tuple[LanguageModeling, DataModule]:
        setting = ["task=language_modeling", f"data.source.files={tmp_path / 'prose.txt'}", "data.block=16"]
        plan = Plan.of(compose_job(*SMALL, "position=rotary", *setting, *overrides).config)
        data = plan.load_data()
        task = plan.build_task()
        assert isinstance(task, LanguageModeling)
        return task.eval(), data

    return build


def evaluated(task: LanguageModeling, data: DataModule) -> dict[str, float]:
    options: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    found = Trainer(logger=False, **options).test(task, datamodule=data, verbose=False)
    return {name: float(value) for metrics in found for name, value in metrics.items()}


def counted(task: LanguageModeling, tokens: list[int], block: int, stride: int) -> list[float]:
    """The nats of every token but the first, each from the window that counts it: a loop over positions."""
    nats, begin, done = [], 0, 0
    while done < len(tokens) - 1:
        begin = min(begin, len(tokens) - 1 - block)
        with torch.no_grad():
            scores = log_softmax(task(torch.tensor([tokens[begin : begin + block]]))[0], -1)
        for place in range(done, begin + block):
            nats.append(-scores[place - begin, tokens[place + 1]].item())
        done, begin = begin + block, begin + stride
    return nats


@QUIET
@pytest.mark.parametrize(("stride", "batch"), [(None, 5), (5, 3), (16, 1)])
def test_a_splits_figures_are_those_of_all_its_tokens(stride: int | None, batch: int, built: Any) -> None:
    task, data = built(f"data.stride={stride or 'null'}", f"data.loader.batch_size={batch}", "data.test_blocks=[40]")
    tokens = data.splits["test"].tokens.array.tolist()
    text = PROSE[round(0.9 * len(PROSE)) :]
    assert data.decode(tokens) == text
    metrics = evaluated(task, data)
    for block, suffix in ((16, ""), (40, "@40")):
        nats = counted(task, tokens, block, stride or block)
        assert len(nats) == len(tokens) - 1
        mean = sum(nats) / len(nats)
        assert metrics[f"test/loss{suffix}"] == pytest.approx(mean, rel=1e-5)
        assert metrics[f"test/perplexity{suffix}"] == pytest.approx(math.exp(mean), rel=1e-5)
        bits = sum(nats) / math.log(2) / len(text[1:].encode())
        assert metrics[f"test/bits_per_byte{suffix}"] == pytest.approx(bits, rel=1e-5)


@QUIET
def test_a_trained_model_is_measured_by_the_data_at_hand(built: Any, tmp_path: Path) -> None:
    task, own = built("tokenizer=byte")
    (tmp_path / "prose.txt").write_text("another text, in which documents end\n" * 30)
    other_task, other = built("tokenizer=byte", "data.test_blocks=[20]", "data.split.test_fraction=0.3")
    assert own.spec.tokens_per_byte["test"] != pytest.approx(other.spec.tokens_per_byte["test"], rel=1e-6)
    assert evaluated(task, other) == evaluated(other_task, other)
    assert "test/loss@20" in evaluated(task, other)
    assert "test/loss@20" not in evaluated(task, own)


@QUIET
def test_bits_per_byte_do_not_change_when_the_vocabulary_is_renamed(built: Any, tmp_path: Path) -> None:
    bpe = BPE(vocabulary_size=300)
    bpe.train([PROSE])
    content = json.loads(bpe.state()["model"])
    vocabulary = content["model"]["vocab"]
    order = torch.randperm(len(vocabulary)).tolist()
    (tmp_path / "one.json").write_text(json.dumps(content))
    content["model"]["vocab"] = {piece: order[index] for piece, index in vocabulary.items()}
    (tmp_path / "renamed.json").write_text(json.dumps(content))
    one, renamed = (
        built("tokenizer=file", f"tokenizer.path={tmp_path / name}.json", "data.stride=4")
        for name in ("one", "renamed")
    )
    one_tokens, other_tokens = (data.splits["test"].tokens.array for _, data in (one, renamed))
    assert [order[index] for index in one_tokens[:20]] == other_tokens[:20].tolist() != one_tokens[:20].tolist()
    table = one[0].model.embedding.weight
    with torch.no_grad():
        renamed[0].model.embedding.weight[torch.tensor([*order, len(order)])] = table
    first, second = evaluated(*one), evaluated(*renamed)
    assert first["test/bits_per_byte"] > 1
    for name, value in first.items():
        assert second[name] == pytest.approx(value, rel=1e-6), name


def test_further_lengths_stand_in_the_summary_and_the_table(compose_job: ComposeJob) -> None:
    job = compose_job(
        *SMALL,
        "task=language_modeling",
        "position=alibi",
        "data.block=16",
        "data.stride=16",
        "data.test_blocks=[16,64]",
    )
    run(job)
    names = {f"test/{name}@{length}" for name in ("loss", "perplexity", "accuracy") for length in (16, 64)}
    metrics = read_summary(job.directory).metrics
    written = {row.metric: row.value for row in read_metrics(job.directory)}
    for name in names:
        assert written[name] == pytest.approx(metrics[name])
    assert metrics["test/loss@16"] == pytest.approx(metrics["test/loss"])
    assert metrics["test/loss@64"] != metrics["test/loss@16"]


@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_a_model_that_cannot_read_a_length_is_refused_or_skipped(position: str, built: Any) -> None:
    wanted = [f"position={position}", "data.test_blocks=[8,17]"]
    if position == "rotary":
        built(*wanted)
        return
    with pytest.raises(
        IncompatibleError, match=r"data\.test_blocks has 17 tokens .* for 16: Learned is not defined beyond"
    ):
        built(*wanted)
    built(f"position={position}", "data.test_blocks=[8]")
