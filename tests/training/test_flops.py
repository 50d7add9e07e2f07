import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from xformer.attention.base import AttentionContext
from xformer.attention.full import Full
from xformer.core.mask import Mask
from xformer.position.base import PositionContext
from xformer.position.t5 import T5
from xformer.training.flops import flops_per_token

BUCKETS = {"buckets": 8, "max_distance": 16}
BATCH, HEADS, LENGTH, WIDTH = 2, 3, 8, 4


class SelfAttention(nn.Module):
    def __init__(self, dropout: float, fused: bool):
        super().__init__()
        self.points = nn.Parameter(torch.randn(BATCH, HEADS, LENGTH, WIDTH))
        self.dropout, self.fused = dropout, fused

    def forward(self) -> Tensor:
        q, k, v = self.points + 1, self.points + 2, self.points + 3
        if self.fused:
            return scaled_dot_product_attention(q, k, v, dropout_p=self.dropout).sum()
        return (torch.softmax(q @ k.transpose(-1, -2), -1) @ v).sum()


def test_linear_counts_three_products() -> None:
    model = nn.Linear(5, 7, bias=False)
    x = torch.randn(BATCH, LENGTH, 5, requires_grad=True)
    counted = flops_per_token(model, lambda: model(x).sum(), tokens=BATCH * LENGTH)
    assert counted == 3 * 2 * 5 * 7


@pytest.mark.parametrize(("fused", "dropout"), [(True, 0.0), (True, 0.1), (False, 0.0)])
def test_attention_counts_the_same_fused_and_not(fused: bool, dropout: float) -> None:
    model = SelfAttention(dropout, fused)
    counted = flops_per_token(model, model, tokens=BATCH * LENGTH)
    assert counted == 6 * 2 * HEADS * LENGTH * WIDTH


def test_full_attention_counts_the_same_with_a_trained_bias_and_without() -> None:
    mask = Mask.consecutive(0, LENGTH, causal=True)
    model, position = SelfAttention(0.0, True), T5(PositionContext(12, HEADS, WIDTH, 1, LENGTH, True), **BUCKETS)
    mix = Full(AttentionContext(HEADS, WIDTH, LENGTH, LENGTH, True))

    def loss() -> Tensor:
        return mix(*(model.points + n for n in (1, 2, 3)), mask=mask, bias=position.bias(0)).sum()

    assert flops_per_token(model, loss, tokens=BATCH * LENGTH) == 6 * 2 * HEADS * LENGTH * WIDTH


def test_counting_leaves_no_trace() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    kept = torch.ones(4, 4)
    model[0].weight.grad = kept
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    state = torch.get_rng_state()
    x = torch.arange(12.0).view(3, 4)
    assert flops_per_token(model, lambda: model(x).sum(), tokens=3) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert model[0].weight.grad is kept
    torch.testing.assert_close(kept, torch.ones(4, 4), rtol=0, atol=0)
    assert model[0].bias.grad is None
    assert model[1].num_batches_tracked.item() == 0
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name])


def test_counting_cleans_up_after_an_error() -> None:
    model = nn.BatchNorm1d(4)

    def loss() -> Tensor:
        model(torch.randn(3, 4))
        raise RuntimeError("mid-way")

    with pytest.raises(RuntimeError, match="mid-way"):
        flops_per_token(model, loss, tokens=3)
    assert model.num_batches_tracked.item() == 0


def test_tokens_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        flops_per_token(nn.Identity(), lambda: torch.zeros(()), tokens=0)
