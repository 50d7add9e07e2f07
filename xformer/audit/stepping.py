"""Whether decoding token by token equals the whole sequence, and the size of the decoding state."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from xformer.audit.evidence import Evidence, Unmeasurable, input_code, relative, tolerance_at
from xformer.audit.subject import Module, Subject


def stepping(subject: Subject, length: int, batch: int, seed: int, *, prompt: bool = False) -> Evidence:
    """The difference between outputs token by token and those of the whole sequence.

    Args:
        subject: the module to measure.
        length: tokens.
        batch: rows.
        seed: the seed of weights and inputs.
        prompt: whether to pass the first half at once.
    """
    module = subject.at(seed)
    if not module.steps:
        raise Unmeasurable
    x, first = module.draw(batch, length), length // 2 if prompt else 0
    with torch.no_grad():
        y = module(x)
        z, _ = decode_stepwise(module, x, first)
    lines = (
        *subject.calling.step_source(),
        "",
        "",
        input_code(module, batch, length),
        "state, outputs, at = None, [], 0",
        f"for part in x.split({[first] * (first > 0) + [1] * (length - first)}, dim=1):",
        "    with torch.no_grad():",
        "        y, state = step(module, part, state, at)",
        "    outputs.append(y)",
        "    at += part.shape[1]",
        "error = (torch.cat(outputs, dim=1) - mix(module, x)).abs().max().item()",
    )
    at = int((z - y).abs().amax((0, 2)).nan_to_num(torch.inf).argmax())
    return Evidence(
        relative(z - y, y),
        tolerance_at(module, x, moved=True),
        lines,
        f"step {at} of {length} differs from the whole",
    )


def decode_stepwise(module: Module, x: Tensor, first: int) -> tuple[Tensor, Any]:
    """Outputs and final state of passing the first tokens at once (0 for none) and the others one by one."""
    state, outputs, at = None, [], 0
    for size in [first] * (first > 0) + [1] * (x.shape[1] - first):
        y, state = module.step(x[:, at : at + size], state, at)
        outputs.append(y)
        at += size
    return torch.cat(outputs, dim=1), state


def state_bytes(module: Module, length: int) -> int:
    """Bytes of the decoding state after so many tokens of one row, without parameters."""
    with torch.no_grad():
        _, state = decode_stepwise(module, module.draw(1, length), 0)
    held: dict[int, int] = {}
    parameters = {t.untyped_storage().data_ptr() for t in (*module.module.parameters(), *module.module.buffers())}
    _collect(state, held, set())
    return sum(size for pointer, size in held.items() if pointer not in parameters)


def _collect(node: Any, held: dict[int, int], seen: set[int]) -> None:
    """Bytes of every tensor in an object and its attributes, by the address of its storage."""
    if id(node) in seen or isinstance(node, str | int | float | bool | type | torch.nn.Module):
        return
    seen.add(id(node))
    if isinstance(node, Tensor):
        held[node.untyped_storage().data_ptr()] = node.untyped_storage().nbytes()
    elif isinstance(node, Mapping):
        for value in node.values():
            _collect(value, held, seen)
    elif isinstance(node, list | tuple | set):
        for value in node:
            _collect(value, held, seen)
    elif hasattr(node, "__dict__"):
        _collect(vars(node), held, seen)
