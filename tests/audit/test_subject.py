"""A module of a seed is the same each time, and hides nothing behind zeros."""

import torch

from tests.audit.made import subject
from xformer.audit.subject import generators_kept, seed_all


def test_a_seed_is_a_module_and_its_inputs() -> None:
    made = subject("Right")
    x = made.at(0).draw(2, 5)
    torch.testing.assert_close(made.at(0)(x), made.at(0)(x), rtol=0, atol=0)
    assert (made.at(0)(x) - made.at(1)(x)).abs().max() > 0.01
    torch.testing.assert_close(made.at(0).draw(3, 9), made.at(0).draw(3, 9), rtol=0, atol=0)
    assert (made.at(0).draw(2, 5, shift=1) - x).abs().min() > 0


def test_biases_of_zero_are_drawn() -> None:
    module = subject("torch.nn.MultiheadAttention").at(0).module
    assert module.in_proj_bias.abs().min() > 0  # type: ignore[union-attr]


def test_a_call_begins_with_the_buffers_that_were_there() -> None:
    module = subject("Counter").at(0)
    x = module.draw(1, 3)
    torch.testing.assert_close(module(x), module(x), rtol=0, atol=0)
    assert not torch.equal(module.repeated(x), module.repeated(x))


def test_lengths_are_tried() -> None:
    made = subject("Eights")
    assert made.takes(24)
    assert not made.takes(23)
    assert all(n % 8 == 0 for n in made.lengths)
    assert (made.nearest(9), made.nearest(10_000)) == (16, 512)


def test_another_type_has_the_same_numbers() -> None:
    narrow = subject("Right").at(0, dtype=torch.float32)
    wide = narrow.copy_to(torch.float64)
    for p, q in zip(narrow.parameters(), wide.parameters(), strict=True):
        torch.testing.assert_close(p.double(), q, rtol=0, atol=0)


def test_generators_are_left_as_they_were() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with generators_kept():
        seed_all(1)
        torch.rand(9)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
