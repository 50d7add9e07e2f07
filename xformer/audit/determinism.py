"""Whether a module is deterministic in eval mode, reproducible with a seed in train mode, and free of side effects."""

from dataclasses import replace

import torch

from xformer.audit.evidence import Evidence, input_code, relative
from xformer.audit.subject import Subject, seed_all


def repeats(
    subject: Subject, length: int, batch: int, seed: int, *, train: bool = False, seeded: bool = False
) -> Evidence:
    """The difference between two calls with the same input; the tolerance is zero.

    Args:
        subject: the module to measure.
        length: tokens.
        batch: rows.
        seed: the seed of weights and inputs.
        train: whether to use train mode.
        seeded: whether to seed all generators alike before both calls.
    """
    module = _unseeded(subject).at(seed, train=train)
    x = module.draw(batch, length)
    with torch.no_grad():
        seed_all(1)
        y = module.repeated(x)
        seed_all(1 if seeded else 2)
        z = module.repeated(x)
    lines = (
        input_code(module, batch, length),
        "torch.manual_seed(1)",
        "first = mix(module, x)",
        f"torch.manual_seed({1 if seeded else 2})",
        "error = (mix(module, x) - first).abs().max().item()",
    )
    same = torch.equal(y, z) or bool((y.isnan() == z.isnan()).all() and torch.equal(y.nan_to_num(), z.nan_to_num()))
    mode, how = ("train" if train else "eval"), "with the same seed" if seeded else "with another seed"
    says = f"two calls in {mode} mode differ {how}"
    return Evidence(0.0 if same else max(relative(z - y, y), 1e-300), 0.0, lines, says)


def keeps_itself(subject: Subject, length: int, batch: int, seed: int) -> Evidence:
    """Whether a call in eval mode leaves parameters and buffers unchanged; the error is 1 if it does not."""
    module = _unseeded(subject).at(seed)
    before = {name: tensor.clone() for name, tensor in module.module.state_dict().items() if torch.is_tensor(tensor)}
    with torch.no_grad():
        module.repeated(module.draw(batch, length))
    after = module.module.state_dict()
    changed = [n for n, t in before.items() if not torch.equal(t.nan_to_num(), after[n].nan_to_num())]
    lines = (
        input_code(module, batch, length),
        "before = {name: t.clone() for name, t in module.state_dict().items()}",
        "mix(module, x)",
        "error = sum(not torch.equal(t, before[name]) for name, t in module.state_dict().items())",
    )
    return Evidence(float(bool(changed)), 0.5, lines, f"a call in eval mode changes {', '.join(changed)}")


def _unseeded(subject: Subject) -> Subject:
    other = Subject.__new__(Subject)
    other.__dict__.update(subject.__dict__, calling=replace(subject.calling, seeded=False))
    return other
