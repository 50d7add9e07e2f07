"""Two calls on one input."""

from tests.audit.made import subject
from xformer.audit.determinism import keeps_itself, repeats


def test_what_draws_is_told_from_what_does_not() -> None:
    assert not repeats(subject("Right"), 4, 1, 0).fails
    drops = subject("DropsInEval")
    assert drops.calling.seeded
    assert repeats(drops, 4, 1, 0).fails
    assert not repeats(drops, 4, 1, 0, seeded=True).fails


def test_what_changes_itself_is_told() -> None:
    assert keeps_itself(subject("Counter"), 4, 1, 0).says == "a call in eval mode changes calls"
    assert keeps_itself(subject("Counter"), 4, 1, 0).fails
    assert not keeps_itself(subject("BatchNorm"), 4, 1, 0).fails


def test_a_generator_that_no_seed_reaches() -> None:
    assert repeats(subject("FreshGenerator"), 4, 1, 0, train=True, seeded=True).fails
    assert not repeats(subject("torch.nn.TransformerEncoderLayer"), 4, 1, 0, train=True, seeded=True).fails
    assert repeats(subject("torch.nn.TransformerEncoderLayer"), 4, 1, 0, train=True).fails
