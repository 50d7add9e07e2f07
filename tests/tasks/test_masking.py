"""Masking: its statistics, and its independence of everything but what it may depend on."""

import pytest
import torch

from xformer.data.batch import IGNORED
from xformer.tasks.masking import MaskingDraws, content_draws, mask_tokens, masking_draws

BERT = {"rate": 0.15, "hidden": 0.8, "random": 0.1}


def test_the_shares_are_berts() -> None:
    vocabulary = 1000
    tokens = torch.randint(vocabulary, (400, 200))
    read, labels = mask_tokens(tokens, masking_draws((0,), (400, 200)), mask_id=vocabulary, **BERT)
    chosen = labels != IGNORED
    assert (chosen.sum(1) == 30).all()  # 15 % of every sequence
    assert torch.equal(labels[chosen], tokens[chosen])
    assert torch.equal(read[~chosen], tokens[~chosen])
    total = int(chosen.sum())
    assert total == 12_000
    fates = {
        "hidden": (read == vocabulary) & chosen,
        "random": (read != tokens) & (read != vocabulary),
        "kept": (read == tokens) & chosen,
    }
    # A random token is the right one once in a thousand.
    for name, share in {"hidden": 0.8, "random": 0.1 * 0.999, "kept": 0.1 + 0.0001}.items():
        deviation = (share * (1 - share) / total) ** 0.5
        assert fates[name].sum().item() / total == pytest.approx(share, abs=4 * deviation)
    places = chosen.float().mean(0)  # every place is as likely
    assert (places - 0.15).abs().max() < 5 * (0.15 * 0.85 / 400) ** 0.5
    others = read[fates["random"]].float()  # and every token
    assert others.mean().item() == pytest.approx(499.5, abs=4 * 288.7 / len(others) ** 0.5)
    assert others.max() < vocabulary


@pytest.mark.parametrize(("length", "count"), [(1, 1), (3, 1), (10, 2), (13, 2), (100, 15)])
def test_every_sequence_has_something_to_restore(length: int, count: int) -> None:
    _, labels = mask_tokens(
        torch.zeros(2, length, dtype=torch.long), masking_draws((1,), (2, length)), mask_id=7, **BERT
    )
    assert (labels != IGNORED).sum(1).tolist() == [count, count]


def test_the_extreme_draws_stay_within_the_vocabulary() -> None:
    largest = torch.full((1, 4), 1 - 2**-24)
    drawn = MaskingDraws(largest, torch.full((1, 4), 0.85), largest)
    read, _ = mask_tokens(torch.zeros(1, 4, dtype=torch.long), drawn, mask_id=50_000, rate=1.0, hidden=0.8, random=0.1)
    assert read.tolist() == [[49_999] * 4]


def test_draws_follow_their_seed() -> None:
    first = masking_draws((0, 1, 2), (3, 5))
    assert all(torch.equal(*pair) for pair in zip(first, masking_draws((0, 1, 2), (3, 5)), strict=True))
    for other in ((1, 1, 2), (0, 2, 2), (0, 1, 3)):
        assert not torch.equal(first.choice, masking_draws(other, (3, 5)).choice)


def test_in_evaluation_a_sequence_has_its_own_masks_wherever_it_stands() -> None:
    tokens = torch.randint(9, (6, 20))
    whole = content_draws(tokens)
    moved = content_draws(tokens[[4, 1]])
    for one, other in zip(whole, moved, strict=True):
        assert torch.equal(one[[4, 1]], other)
    assert not torch.equal(whole.choice[0], whole.choice[1])
