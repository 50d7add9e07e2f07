"""The Vision Transformer: its patches, its pooling, and augmented runs that repeat exactly."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax
from torch.testing import assert_close

from tests.conftest import SMALL, ComposeJob
from tests.contracts.variants import ENCODERS
from xformer.config.plan import Plan
from xformer.config.validate import validate
from xformer.data.batch import ImageBatch
from xformer.errors import ConfigError
from xformer.runs.summary import read_summary
from xformer.tasks.image_classification import ImageClassification
from xformer.training.run import run

TINY = [*SMALL, "task=image_classification"]
AUGMENTED = [*TINY, "task.augmentation.rand_augment.operations=2", "task.augmentation.mixup.alpha=0.5"]


@pytest.fixture
def built(compose_job: ComposeJob) -> Any:
    def build(*overrides: str) -> tuple[ImageClassification, ImageBatch]:
        plan = Plan.of(compose_job(*TINY, *overrides).config)
        data = plan.load_data()
        task = plan.build_task()
        assert isinstance(task, ImageClassification)
        return task, data.splits["val"].__getitems__(range(8))

    return build


def test_a_model_is_built_for_its_patches(built: Any) -> None:
    task, batch = built("task.patch_size=4")
    assert (task.model.max_length, task.tokens_per_image) == (5, 4)
    assert int(task.count_tokens(batch)) == 8 * 4
    assert task(batch.images).shape == (8, 10)
    mean, _ = built("task.patch_size=4", "task.pooling=mean")
    assert mean.model.max_length == 4
    assert not [name for name, _ in mean.named_parameters() if "class_token" in name]


def test_pooling_is_over_the_patches_or_the_class_token(built: Any) -> None:
    for pooling in ("class", "mean"):
        task, batch = built(f"task.pooling={pooling}")
        hidden = task.eval().model(batch.images)
        pooled = hidden[:, 0] if pooling == "class" else hidden.sum(dim=1) / 16
        assert_close(task(batch.images), pooled @ task.head.weight.T + task.head.bias)


def test_patches_that_do_not_fit_are_refused(built: Any) -> None:
    with pytest.raises(ConfigError, match=r"task\.patch_size=3 does not divide .* 1, 2, 4, 8 would work"):
        built("task.patch_size=3")
    with pytest.raises(ConfigError, match=r"task\.pooling=mean would work"):
        built("architecture=decoder")


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_mixed_images_is_the_mixed_loss(smoothing: float, built: Any) -> None:
    task, batch = built(f"task.label_smoothing={smoothing}", "architecture.dropout=0.0")
    shares = torch.softmax(torch.randn(8, 10), dim=1)
    outcome = task.step(ImageBatch(batch.images, shares))
    smooth = (1 - smoothing) * shares + smoothing / 10
    assert_close(outcome.loss, -(smooth * log_softmax(outcome.logits, dim=1)).sum(dim=1).mean())
    assert torch.equal(outcome.labels, shares.argmax(dim=1))
    task.eval()
    assert_close(task.step(batch).loss, cross_entropy(task(batch.images), batch.labels))


def test_only_training_is_augmented(compose_job: ComposeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[torch.Tensor]] = {"train": [], "rest": []}
    step = ImageClassification.step

    def spy(self: ImageClassification, batch: ImageBatch) -> Any:
        if self._trainer is not None:
            seen["train" if self.trainer.training else "rest"].append(batch.labels)
        return step(self, batch)

    monkeypatch.setattr(ImageClassification, "step", spy)
    run(compose_job(*AUGMENTED))
    assert seen["train"]
    assert all(labels.ndim == 2 for labels in seen["train"])
    assert seen["rest"]
    assert all(labels.ndim == 1 for labels in seen["rest"])


def test_augmented_runs_repeat_and_resume_exactly(compose_job: ComposeJob, tmp_path: Path) -> None:
    steps = [*AUGMENTED, "schedule=constant", "trainer.val_check_interval=2", "data.loader.batch_size=16"]
    for name in ("whole", "again"):
        run(compose_job(*steps, "trainer.max_steps=6", directory=tmp_path / name))
    run(compose_job(*steps, "trainer.max_steps=4", directory=tmp_path / "parts"))
    torch.manual_seed(5)
    run(compose_job(*steps, "trainer.max_steps=6", "resume=true", directory=tmp_path / "parts"))
    whole, again, parts = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "again", "parts")
    )
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


@pytest.mark.parametrize("choice", [*(f"attention={name}" for name in ENCODERS), "position=rotary"])
def test_every_attention_reads_patches(choice: str, compose_job: ComposeJob) -> None:
    job = compose_job(*TINY, choice, "trainer.max_steps=2", "trainer.val_check_interval=2")
    run(job)
    summary = read_summary(job.directory)
    assert summary.status == "finished"
    assert {"val/accuracy", "val/macro_f1", "test/macro_f1"} <= set(summary.metrics)
    assert summary.tokens_seen == 2 * 32 * 16


def test_the_encoder_decoder_reads_patches_on_both_sides(compose_job: ComposeJob) -> None:
    run(job := compose_job(*TINY, "architecture=encoder_decoder", "task.pooling=mean"))
    assert read_summary(job.directory).status == "finished"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "+task.augmentation.mixup.alfa=1",
            r"task\.augmentation\.mixup\.alfa is not a parameter .* did you mean alpha",
        ),
        (
            "task.augmentation.rand_augment.operations=two",
            r"task\.augmentation\.rand_augment\.operations=two has the wrong type",
        ),
    ],
)
def test_a_bad_key_or_value_of_a_part_is_named(override: str, sentence: str, compose_job: ComposeJob) -> None:
    with pytest.raises(ConfigError, match=sentence):
        validate(compose_job(*TINY, override).config)
