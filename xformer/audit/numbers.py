"""Precision in 16 bits, finiteness for extreme inputs, and the numbers of parameters and buffers."""

import statistics
from collections.abc import Mapping

import torch

from xformer.audit.evidence import Evidence, input_code
from xformer.audit.subject import Subject
from xformer.audit.target import one_line

TYPES = (torch.bfloat16, torch.float16, torch.float32)
EXTREMES: Mapping[str, str] = {
    "zeros": "0 * x",
    "equal tokens": "x[:, :1].expand_as(x).clone()",
    "x 1e-6": "1e-6 * x",
    "x 1e3": "1e3 * x",
    "x 1e6": "1e6 * x",
}
"""Inputs in float32, made of standard normal ones."""


def precision(subject: Subject, length: int, seeds: int) -> dict[str, float | str]:
    """The relative root mean square error of the outputs by type, compared with float64.

    Weights and inputs are rounded to the type first, so this is the error of computing in the type. The value is the
    maximum over seeds, or a sentence if the module cannot run in the type.
    """
    found: dict[str, float | str] = {}
    for dtype in TYPES:
        errors = []
        try:
            for seed in range(seeds):
                narrow = subject.at(seed, dtype=torch.float32).copy_to(dtype)
                exact = narrow.copy_to(subject.dtype)
                x = narrow.draw(2, length)
                with torch.no_grad():
                    y, z = narrow(x).double(), exact(x.to(subject.dtype)).double()
                errors.append(float((y - z).norm() / z.norm()))
        except Exception as error:
            found[_name(dtype)] = f"cannot run ({one_line(error)})"
            continue
        worst = max(errors)
        found[_name(dtype)] = worst if statistics.median(errors) == statistics.median(errors) else "not finite"
    return found


def roundings(errors: Mapping[str, float | str]) -> dict[str, float]:
    """These errors in units of the type's rounding, half the distance from 1 to the next number."""
    return {
        name: error / (torch.finfo(getattr(torch, name)).eps / 2)
        for name, error in errors.items()
        if isinstance(error, float)
    }


def extreme(subject: Subject, length: int, batch: int, seed: int, *, kind: str) -> Evidence:
    """Whether outputs and gradients are finite in float32 for one of EXTREMES; the error is infinite if not."""
    module = subject.at(seed, dtype=torch.float32)
    x = eval(EXTREMES[kind], {"x": module.draw(batch, length)}).requires_grad_()
    y = module(x)
    parts = [x, *module.parameters()]
    slopes = torch.autograd.grad(y.sum(), parts, allow_unused=True) if y.requires_grad else []
    finite = all(torch.isfinite(t).all() for t in (y, *(slope for slope in slopes if slope is not None)))
    lines = (
        "module = module.float()",
        input_code(module, batch, length),
        f"x = ({EXTREMES[kind]}).requires_grad_()",
        "y = mix(module, x)",
        "y.sum().backward()",
        "error = (~torch.isfinite(y)).sum().item() + (~torch.isfinite(x.grad)).sum().item()  # non-finite values",
        "error += sum((~torch.isfinite(p.grad)).sum().item() for p in module.parameters() if p.grad is not None)",
    )
    return Evidence(0.0 if finite else float("inf"), 0.5, lines, f"{kind}: outputs or gradients are not finite")


def sizes(subject: Subject) -> dict[str, int]:
    """The numbers of trained parameters, fixed parameters and buffer elements."""
    module = subject.at(0).module
    parameters = list(module.parameters())
    return {
        "trained": sum(p.numel() for p in parameters if p.requires_grad),
        "fixed": sum(p.numel() for p in parameters if not p.requires_grad),
        "buffers": sum(b.numel() for b in module.buffers()),
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
