"""What tasks that predict tokens share: the output layer, the loss, and lengths that the model cannot read."""

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from tests.conftest import SMALL, ComposeJob
from xformer.config.plan import Plan
from xformer.data.batch import IGNORED
from xformer.data.spec import DataSpec
from xformer.errors import IncompatibleError
from xformer.tasks.token_prediction import TokenPrediction


@pytest.fixture
def built(compose_job: ComposeJob) -> Any:
    def build(*overrides: str, test_lengths: tuple[int, ...] = ()) -> TokenPrediction:
        plan = Plan.of(compose_job(*SMALL, "architecture.dropout=0.0", *overrides).config)
        plan.data.spec = DataSpec(vocabulary=12, length=8, test_lengths=[*test_lengths])
        task = plan.build_task()
        assert isinstance(task, TokenPrediction)
        return task

    return build


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["language_modeling", "masked_language_modeling"])
def test_the_output_layer_is_the_table_or_a_matrix_and_never_predicts_what_is_only_read(
    name: str, tied: bool, built: Any
) -> None:
    task = built(f"task={name}", f"task.tied_embeddings={str(tied).lower()}")
    table = task.model.embedding.weight
    assert len(table) == 12 + (name == "masked_language_modeling")  # the mask token
    hidden = torch.randn(2, 8, task.model.size.d_model)
    matrix = table[:12] if tied else task.head.weight
    assert_close(task.logits(hidden), hidden @ matrix.T)
    assert task.logits(hidden).shape[-1] == 12
    assert tied == (task.head is None)


def test_the_loss_is_of_the_labels_that_count_and_smooth_in_training_alone(built: Any) -> None:
    task = built("task=language_modeling", "task.label_smoothing=0.3")
    logits, labels = torch.randn(2, 5, 12), torch.randint(12, (2, 5))
    labels[0, 2:] = IGNORED
    real = labels != IGNORED
    plain = -logits.log_softmax(-1)[real]
    picked = plain.gather(1, labels[real][:, None]).mean()
    assert_close(task.eval().loss(logits, labels), picked)
    assert_close(task.train().loss(logits, labels), 0.7 * picked + 0.3 * plain.mean())
    assert_close(task.loss(logits, labels), cross_entropy(logits[real], labels[real], label_smoothing=0.3))


def test_a_length_that_the_model_cannot_read_is_refused(built: Any) -> None:
    named = "built for 8: Learned is not defined beyond that; position=sinusoidal"
    with pytest.raises(IncompatibleError, match=f"data.test_blocks has 9 tokens .* {named}"):
        built("task=language_modeling", "position=learned", test_lengths=(4, 9))
    task = built("task=language_modeling", "position=learned", test_lengths=(4, 8))
    assert task.test_suffixes == ["", "@4", "@8"]
    assert len(task.longer_metrics) == 2
    built("task=language_modeling", "position=rotary", test_lengths=(4, 9))
