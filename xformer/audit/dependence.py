"""Which outputs depend on which inputs, measured by the Jacobian and by changing inputs.

Derivatives miss a detached maximum, a sort or a selected index; changes of the input show these.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from xformer.audit.evidence import Evidence, input_code, relative, tolerance_at
from xformer.audit.subject import Module, Subject, seed_all

FACTORS = (1.0, 10.0, -100.0)
"""Factors of the tokens that replace others; large ones reveal what a stabiliser hides for small ones."""
FEW = 8


def sample_positions(length: int, most: int) -> list[int]:
    """All positions, or a sample that includes both ends."""
    if length <= most:
        return list(range(length))
    return sorted({round(i * (length - 1) / (most - 1)) for i in range(most)} | {1, length - 2})


def jacobian(module: Module, x: Tensor, outputs: Sequence[int]) -> Tensor:
    """The largest derivative of any feature of each output by each input: (outputs, batch * length).

    Args:
        module: the module to differentiate.
        x: the input, (b, n, d).
        outputs: positions of outputs in the first row.
    """
    x = x.detach().requires_grad_()
    seed_all(0)
    y = module(x)
    generator = torch.Generator().manual_seed(1)
    rows = []
    for i in outputs:
        up = torch.zeros_like(y)
        up[0, i] = torch.randn(y.shape[-1], generator=generator, dtype=torch.float64).to(y.dtype)
        if not y.requires_grad:
            rows.append(x.new_zeros(x.shape[0] * x.shape[1]))
            continue
        (slope,) = torch.autograd.grad(y, x, up, retain_graph=True, allow_unused=True)
        rows.append(x.new_zeros(x.shape[0] * x.shape[1]) if slope is None else slope.abs().amax(-1).flatten())
    return torch.stack(rows).detach()


def responds(subject: Subject, length: int, batch: int, seed: int) -> Evidence:
    """Whether the outputs depend on the inputs at all; the error is 1 if they do not."""
    module = subject.at(seed)
    with torch.no_grad():
        y, other = module(module.draw(batch, length)), module(module.draw(batch, length, shift=1))
    return Evidence(float(torch.equal(y, other)), 0.5)


def future(subject: Subject, length: int, batch: int, seed: int, *, train: bool = False) -> Evidence:
    """How much an output depends on a later token.

    In train mode, where a module may be random, only derivatives are used; a non-zero one is a leak for any draw.
    """
    module = subject.at(seed, train=train)
    x = module.draw(batch, length)
    limit = 1e-3 if train and not _repeats(module, x) else tolerance_at(module, x)
    outputs = sample_positions(length, 16)[:-1]
    worst = Evidence(0.0, limit)
    if outputs:
        slopes = jacobian(module, x, outputs)[:, :length]
        later = torch.arange(length) > torch.tensor(outputs)[:, None]
        leak = (slopes * later).nan_to_num(torch.inf)
        at, j = divmod(int(leak.argmax()), length)
        error = float(leak.max() / slopes.nan_to_num(0.0).max().clamp(min=1e-300))
        lines: tuple[str, ...] = (
            input_code(module, batch, length),
            "x.requires_grad_()",
            f"mix(module, x)[0, {outputs[at]}].square().sum().backward()",
            f"error = x.grad[0, {j}].abs().max().item()  # derivative of output {outputs[at]} by token {j}",
        )
        says = f"output {outputs[at]} of {length} has a non-zero derivative with respect to token {j}"
        worst = Evidence(error, limit, lines, says)
    if train or worst.fails:
        return worst
    with torch.no_grad():
        y, fresh = module(x), module.draw(batch, length, shift=1)
        for j in sample_positions(length, 16 if length <= 16 else FEW)[1:]:
            for factor in FACTORS:
                changed = x.clone()
                changed[:, j] = factor * fresh[:, j]
                z = module(changed)
                error = relative((z - y)[:, :j], torch.cat([y, z], 1))
                if error > worst.error:
                    lines = (
                        input_code(module, batch, length),
                        input_code(module, batch, length, 1, "other"),
                        "changed = x.clone()",
                        f"changed[:, {j}] = {factor} * other[:, {j}]",
                        f"error = (mix(module, changed) - mix(module, x))[:, :{j}].abs().max().item()"
                        f"  # outputs before token {j}",
                    )
                    worst = Evidence(error, limit, lines, f"outputs before {j} of {length} change with token {j}")
    return worst


def other_rows(subject: Subject, length: int, batch: int, seed: int, *, train: bool = False) -> Evidence:
    """How much a row of the batch depends on another row."""
    module = subject.at(seed, train=train)
    x = module.draw(batch, length)
    limit = 1e-3 if train and not _repeats(module, x) else tolerance_at(module, x)
    slopes = jacobian(module, x, sample_positions(length, 4)).view(-1, batch, length)
    across = slopes[:, 1:].nan_to_num(torch.inf)
    error = float(across.max() / slopes.nan_to_num(0.0).max().clamp(min=1e-300)) if batch > 1 else 0.0
    lines: tuple[str, ...] = (
        input_code(module, batch, length),
        "x.requires_grad_()",
        "mix(module, x)[0].square().sum().backward()",
        "error = x.grad[1:].abs().max().item()  # derivative of row 0 with respect to other rows",
    )
    worst = Evidence(error, limit, lines, "row 0 has a non-zero derivative with respect to another row")
    if train or worst.fails or batch == 1:
        return worst
    with torch.no_grad():
        y = module(x)
        for factor in FACTORS:
            changed = x.clone()
            changed[1:] = factor * module.draw(batch, length, shift=1)[1:]
            z = module(changed)
            error = relative((z - y)[0], torch.cat([y, z], 1))
            if error > worst.error:
                lines = (
                    input_code(module, batch, length),
                    input_code(module, batch, length, 1, "other"),
                    "changed = x.clone()",
                    f"changed[1:] = {factor} * other[1:]",
                    "error = (mix(module, changed) - mix(module, x))[0].abs().max().item()  # row 0",
                )
                worst = Evidence(error, limit, lines, "row 0 changes with another row")
    return worst


def batch_size(subject: Subject, length: int, batch: int, seed: int) -> Evidence:
    """The difference between a row alone and the same row in a batch."""
    module = subject.at(seed)
    x = module.draw(batch, length)
    with torch.no_grad():
        y = module(x)
        errors = [relative(module(x[row : row + 1])[0] - y[row], y) for row in range(batch)]
    row = max(range(batch), key=errors.__getitem__)
    lines = (
        input_code(module, batch, length),
        f"error = (mix(module, x[{row}:{row + 1}])[0] - mix(module, x)[{row}]).abs().max().item()  # alone",
    )
    return Evidence(
        errors[row],
        tolerance_at(module, x, moved=True),
        lines,
        f"row {row} alone differs from row {row} of {batch}",
    )


def reach(subject: Subject, length: int, seed: int) -> tuple[int, int, int, int]:
    """How far back and ahead an output reads, by derivatives of any size and by derivatives above rounding.

    Returns:
        back, ahead, back above rounding, ahead above rounding, in tokens.
    """
    module = subject.at(seed)
    x = module.draw(1, length)
    outputs = sample_positions(length, FEW)
    slopes = jacobian(module, x, outputs)
    distance = torch.arange(length) - torch.tensor(outputs)[:, None]
    found = []
    for least in (0.0, tolerance_at(module, x) * float(slopes.max())):
        read = distance[slopes > least]
        found += [int(-read.min().clamp(max=0)), int(read.max().clamp(min=0))] if read.numel() else [0, 0]
    return found[0], found[1], found[2], found[3]


def _repeats(module: Module, x: Tensor) -> bool:
    """Whether the module is deterministic in train mode."""
    with torch.no_grad():
        seed_all(0)
        first = module(x)
        seed_all(1)
        return torch.equal(first, module(x))
