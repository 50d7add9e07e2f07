"""The task: what it trains on and what it measures, and runs on labelled texts from the command line's choices."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from xformer.config.plan import Plan
from xformer.config.validate import validate
from xformer.errors import ConfigError
from xformer.runs.summary import read_summary
from xformer.tasks.classification import Classification
from xformer.tasks.losses import Focal
from xformer.training.run import run

# Importing the libraries that parse emits deprecations that are not ours.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def built(compose_job: ComposeJob) -> Any:
    def build(*overrides: str) -> tuple[Classification, Any]:
        config = compose_job(*SMALL, *SMALL_LISTOPS, "architecture.dropout=0.0", *overrides).config
        validate(config)
        plan = Plan.of(config)
        data = plan.load_data()
        task = plan.build_task()
        assert isinstance(task, Classification)
        return task, data

    return build


def test_weights_smoothing_and_loss_change_training_alone(built: Any) -> None:
    task, data = built("loss=focal", "loss.gamma=1.5", "task.class_weights=balanced", "task.label_smoothing=0.1")
    batch = data.splits["train"].__getitems__(range(16))
    outcome = task.train().step(batch)
    counts = torch.bincount(torch.from_numpy(data.splits["train"].labels.astype("int64")), minlength=10)
    assert data.spec.class_counts == counts.tolist()
    weights = 200 / (10 * counts)
    expected = Focal(gamma=1.5)(outcome.logits, batch.labels, weights=weights, label_smoothing=0.1)
    assert_close(outcome.loss, expected)
    outcome = task.eval().step(batch)
    assert_close(outcome.loss, cross_entropy(outcome.logits, batch.labels))


def test_class_weights_are_torchs_and_no_part_of_a_checkpoint(built: Any) -> None:
    weights = [float(number) for number in range(1, 11)]
    task, data = built(f"task.class_weights={weights}")
    batch = data.splits["train"].__getitems__(range(16))
    outcome = task.train().step(batch)
    assert_close(outcome.loss, cross_entropy(outcome.logits, batch.labels, weight=torch.tensor(weights)))
    assert "class_weights" not in task.state_dict()


def test_metrics_are_scikit_learns(built: Any) -> None:
    task, _ = built()
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(60, 10, generator=generator)
    labels = torch.randint(7, (60,), generator=generator)
    for part in range(3):
        task.val_metrics.update(logits[part::3], labels[part::3])
    found = {name: value.item() for name, value in task.val_metrics.compute().items()}
    predicted = logits.argmax(-1)
    assert found["val/accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert found["val/macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))


def test_too_few_weights_are_refused_by_name(built: Any) -> None:
    with pytest.raises(ConfigError, match=r"task\.class_weights=\[1\.0\] has 1 weights, and the data have 10 classes"):
        built("task.class_weights=[1.0]")


@pytest.mark.parametrize("value", ["even", "1.0"])
def test_weights_of_the_wrong_type_are_refused_before_data_is_loaded(value: str, compose_job: ComposeJob) -> None:
    with pytest.raises(ConfigError, match=r"task\.class_weights=.* has the wrong type"):
        validate(compose_job(f"task.class_weights={value}").config)


def reviews(path: Path) -> str:
    lines = [f"film {number} is {'dull' if number % 5 == 0 else 'fine'}\t{number % 5 == 0:d}" for number in range(100)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.balanced=true", "tokenizer=byte"],
        ["data.loader.tokens_per_batch=512", "loss=focal", "task.class_weights=balanced"],
        ["attention=linformer", "position=sinusoidal", "tokenizer=character", "task.pooling=class"],
    ],
    ids=["balanced", "budget", "linformer"],
)
def test_a_run_on_a_file_of_ones_own(overrides: list[str], compose_job: ComposeJob, tmp_path: Path) -> None:
    source = [f"data.source.files={reviews(tmp_path / 'reviews.tsv')}", "data.source.column_names=[text,label]"]
    job = compose_job(*SMALL, "data=text_classification", *source, "data.max_length=32", *overrides)
    run(job)
    summary = read_summary(job.directory)
    assert summary.status == "finished"
    assert {"train/macro_f1", "val/macro_f1", "test/macro_f1", "test/accuracy"} <= set(summary.metrics)
    assert summary.trivial_baselines == {"majority class": 0.8} or summary.trivial_baselines["majority class"] > 0.5
    assert (job.directory / "tokenizer.json").is_file()
