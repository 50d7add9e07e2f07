"""Effects of padding: neither its content nor its presence may change other outputs or make gradients non-finite.

Shapes: b batch, n length, d features; `valid` (b, n) is False at padding.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from xformer.audit.dependence import FACTORS
from xformer.audit.evidence import Evidence, Unmeasurable, input_code, relative, tolerance_at
from xformer.audit.subject import Module, Subject

Side = Literal["left", "right"]


def content(subject: Subject, length: int, batch: int, seed: int, *, side: Side) -> Evidence:
    """How much the outputs of other tokens change with the content of padding."""
    module, x, valid, counts = _padded(subject, length, batch, seed, side)
    hidden = ~valid[..., None]
    with torch.no_grad():
        y = module(x, valid)
        limit, fresh, worst = tolerance_at(module, x, valid), module.draw(batch, length, shift=1), (-1.0, 1.0)
        for factor in FACTORS:
            z = module(torch.where(hidden, factor * fresh, x), valid)
            worst = max(worst, (relative((z - y)[valid], torch.cat([y[valid], z[valid]])), factor))
    error, factor = worst
    lines = (
        *_lines(module, batch, length, counts, side),
        input_code(module, batch, length, 1, "other"),
        f"changed = torch.where(valid[..., None], x, {factor} * other)  # at padding alone",
        "error = (mix(module, changed, valid) - mix(module, x, valid))[valid].abs().max().item()",
    )
    return Evidence(error, limit, lines, f"outputs change with the content of padding ({side})")


def alone(subject: Subject, length: int, batch: int, seed: int, *, side: Side) -> Evidence:
    """The difference between the outputs and those of the same tokens without padding."""
    module, x, valid, counts = _padded(subject, length, batch, seed, side)
    if not set(counts) <= set(subject.lengths):
        raise Unmeasurable
    with torch.no_grad():
        y = module(x, valid)
        errors = [relative(module(x[r : r + 1, valid[r]])[0] - y[r, valid[r]], y[valid]) for r in range(batch)]
    row = max(range(batch), key=errors.__getitem__)
    lines = (
        *_lines(module, batch, length, counts, side),
        f"whole = mix(module, x[{row}:{row + 1}, valid[{row}]])[0]  # without padding",
        f"error = (mix(module, x, valid)[{row}, valid[{row}]] - whole).abs().max().item()",
    )
    return Evidence(
        errors[row],
        tolerance_at(module, x, valid, moved=True),
        lines,
        f"padding on the {side} changes other outputs",
    )


def gradient(subject: Subject, length: int, batch: int, seed: int, *, side: Side) -> Evidence:
    """Whether gradients of a loss over other tokens are finite in float32; the error is infinite if not."""
    module, x, valid, counts = _padded(subject, length, batch, seed, side, torch.float32)
    x.requires_grad_()
    loss = module(x, valid)[valid].square().sum()
    parts = [x, *module.parameters()]
    slopes = torch.autograd.grad(loss, parts, allow_unused=True) if loss.requires_grad else []
    finite = all(torch.isfinite(slope).all() for slope in slopes if slope is not None)
    lines = (
        "module = module.float()",
        *_lines(module, batch, length, counts, side),
        "x.requires_grad_()",
        "mix(module, x, valid)[valid].square().sum().backward()",
        "error = (~torch.isfinite(x.grad)).sum().item()  # non-finite derivatives",
        "error += sum((~torch.isfinite(p.grad)).sum().item() for p in module.parameters() if p.grad is not None)",
    )
    return Evidence(0.0 if finite else float("inf"), 0.5, lines, f"gradients are not finite with padding on the {side}")


def _padded(
    subject: Subject, length: int, batch: int, seed: int, side: Side, dtype: torch.dtype | None = None
) -> tuple[Module, Tensor, Tensor, Sequence[int]]:
    """A batch with shorter rows; the first row is full unless it is the only one."""
    shorter = [n for n in subject.lengths if n < length] or ([max(1, length // 2)] if length > 1 else [])
    if not shorter:
        raise Unmeasurable
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(shorter), (batch,), generator=generator).tolist()
    counts = [shorter[index] for index in chosen]
    if batch > 1:
        counts[0] = length
    module = subject.at(seed, dtype=dtype)
    return module, module.draw(batch, length), mask(counts, length, side), counts


def mask(counts: Sequence[int], length: int, side: Side) -> Tensor:
    """(b, n), True at the first or last `counts` tokens of each row, with padding on one side."""
    valid = torch.arange(length) < torch.tensor(counts)[:, None]
    return valid if side == "right" else valid.flip(-1)


def _lines(module: Module, batch: int, length: int, counts: Sequence[int], side: Side) -> tuple[str, ...]:
    tokens = f"torch.arange({length}) < torch.tensor({list(counts)})[:, None]"
    valid = f"valid = {tokens if side == 'right' else f'({tokens}).flip(-1)'}  # padding on the {side}"
    return input_code(module, batch, length), valid
