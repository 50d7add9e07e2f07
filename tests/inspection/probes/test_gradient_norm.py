"""The norms, against the gradients that a backward pass leaves."""

import pytest
import torch
from torch.testing import assert_close

from tests.inspection.probes.conftest import LISTOPS, TRANSDUCTION, Prepared
from xformer.inspection.probes.gradient_norm import GradientNorm

PROBE = GradientNorm(examples=2)


@pytest.mark.parametrize("chosen", [LISTOPS, TRANSDUCTION], ids=["encoder", "encoder_decoder"])
def test_the_norms_are_those_of_a_backward_pass(chosen: list[str], prepared: Prepared) -> None:
    task, examples = prepared(*chosen, "size.layers=2")
    with torch.inference_mode():
        found = PROBE.measure(task, examples)
    assert all(parameter.grad is None for parameter in task.parameters())
    (sum(task.step(example).loss for example in examples) / 2).backward()  # type: ignore[union-attr]
    gradients = {name: torch.zeros(1) if p.grad is None else p.grad for name, p in task.named_parameters()}
    parts = {"model.embedding.": "embedding"}
    for tower, slot in [("tower", "encoder" if chosen == TRANSDUCTION else "self"), ("decoder", "decoder")]:
        parts |= {f"model.{tower}.blocks.{layer}.": f"{slot}/layer{layer}" for layer in range(2)}
    for prefix, place in parts.items():
        own = [gradients.pop(name).flatten() for name in list(gradients) if name.startswith(prefix)]
        if own:
            assert_close(found.pop(f"gradient_norm/{place}"), torch.cat(own).norm())
    rest = torch.cat([gradient.flatten() for gradient in gradients.values()])
    assert_close(found.pop("gradient_norm/rest"), rest.norm())
    assert not found
