"""Adapters that call a module, as generated lines of Python, which an audit both runs and prints.

Shapes: b batch, n length, d features. x is (b, n, d); `valid` is (b, n), False at padding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Mix = Callable[..., Tensor]
"""(module, x, valid=None) -> outputs, (b, n, features)."""
Step = Callable[[nn.Module, Tensor, Any, int], tuple[Tensor, Any]]
"""(module, next tokens, state or None, tokens before them) -> their outputs and the new state."""

_Call = TypeVar("_Call", bound=Callable[..., Any])

MASK_FORMS = {
    "True = ignore": "~valid",
    "True = keep": "valid",
    "1 = keep": "valid.long()",
    "1 = keep, in the input's type": "valid.to(x.dtype)",
    "4-D, added to the scores": "(~allowed).to(x.dtype) * torch.finfo(x.dtype).min",
    "4-D, True = keep": "allowed",
    "lengths": "valid.sum(-1)",
    "a Mask of xformer": "Mask.consecutive(0, x.shape[1], causal=module.context.causal, key_padding=valid)",
}
"""The expression passed for `valid`, by the name of the convention."""
CAUSAL_FORMS = {
    "True = blocked": "torch.ones(n, n, dtype=torch.bool).triu(1)",
    "True = keep": "torch.ones(n, n, dtype=torch.bool).tril()",
    "added to the scores": "torch.full((n, n), float('-inf'), dtype=x.dtype).triu(1)",
    "a flag": "True",
    "within the padding mask": "",
    "within the padding mask, where there is one": "",
}
"""The expression that makes a module causal, by the name of the convention."""
LAYOUTS = {
    "batch length width": ("x", "y"),
    "length batch width": ("x.transpose(0, 1)", "y.transpose(0, 1)"),
    "batch heads length width": ("x.unflatten(-1, (4, -1)).transpose(1, 2)", "y.transpose(1, 2).flatten(-2)"),
    "batch width length": ("x.transpose(1, 2)", "y.transpose(1, 2)"),
}
"""How x becomes the module's input, and its output becomes (b, n, features)."""


@dataclass(frozen=True)
class StateArgument:
    """How a module takes and returns its decoding state.

    Attributes:
        name: the argument, or the method that takes one token.
        fresh: an expression of the state before the first token.
        flags: further arguments that are needed for the state to be returned.
        found_at: the index of the state in the return value, as `[1]`; empty if the state is changed in place.
        imports: lines that `fresh` needs.
        method: whether `name` is a method that takes one token and the state.
        squeezed: whether that method takes (b, d).
    """

    name: str
    fresh: str = "None"
    flags: tuple[str, ...] = ()
    found_at: str = ""
    imports: tuple[str, ...] = ()
    method: bool = False
    squeezed: bool = False

    def __str__(self) -> str:
        return f"{self.name}(token, state)" if self.method else ", ".join([f"{self.name}=", *self.flags])


@dataclass(frozen=True)
class Calling:
    """How a module is called.

    Attributes:
        x: how it takes its input: `x`, three times as `x, x, x`, or by name as `inputs_embeds=x`.
        layout: a key of LAYOUTS.
        output: the index of the outputs in the return value, as `[0]`; empty if it returns only them.
        mask: the argument that takes padding, and a key of MASK_FORMS; None without one.
        causal: the argument that makes it causal, and a key of CAUSAL_FORMS; None if nothing is passed.
        rotary: the module and the class that make the argument `position_embeddings` from positions.
        seeded: whether to seed the generator before each call, because the module is random in eval mode too.
        state: how it decodes; None if no way was found.
        function: the user's `module:function` of `(module, x, valid)`, which replaces all above.
        step_function: the user's `module:function` of `(module, x, state, start)`.
    """

    x: str = "x"
    layout: str = "batch length width"
    output: str = ""
    mask: tuple[str, str] | None = None
    causal: tuple[str, str] | None = None
    rotary: tuple[str, str] | None = None
    seeded: bool = False
    state: StateArgument | None = None
    function: str | None = None
    step_function: str | None = None

    def imports(self) -> list[str]:
        """Import lines for the generated functions, placed after `config` is defined."""
        lines = [] if self.rotary is None else [f"from {self.rotary[0]} import {self.rotary[1]}"]
        if self.mask is not None and self.mask[1] == "a Mask of xformer":
            lines.append("from xformer.core.mask import Mask")
        if self.rotary is not None:
            lines.append(f"rotary = {self.rotary[1]}(config)")
        return lines

    def source(self, *, raw: bool = False) -> list[str]:
        """Lines that define `mix(module, x, valid=None)`; with `raw` it returns the module's return value unchanged."""
        seed = ["    torch.manual_seed(0)"] if self.seeded else []
        if self.function is not None:
            where, _, name = self.function.rpartition(":")
            call = ["def mix(module, x, valid=None):", *seed, "    return call(module, x, valid)"]
            return [f"from {where} import {name} as call", *call]
        lines, passed = list(seed), [self.x]
        within = self.causal is not None and self.causal[1].startswith("within")
        if self.causal is not None or (self.mask is not None and "4-D" in self.mask[1]):
            lines.append("    n = x.shape[1]")
        if self.mask is not None:
            lines += self._mask_lines(always=self.causal is not None and self.causal[1] == "within the padding mask")
            passed.append(f"{self.mask[0]}=mask")
        if self.causal is not None and not within:
            passed.append(f"{self.causal[0]}={CAUSAL_FORMS[self.causal[1]]}")
        if self.rotary is not None:
            passed.append("position_embeddings=rotary(x, torch.arange(x.shape[1])[None])")
        call = self._layout_lines(f"module({', '.join(passed)})", output=not raw)
        return ["def mix(module, x, valid=None):", *lines, *([*call[:-1], "    return y"] if raw else call)]

    def step_source(self) -> list[str]:
        """Lines that define `step(module, x, state, start)`; empty if the module does not decode."""
        head = "def step(module, x, state, start):"
        seed = ["    torch.manual_seed(0)"] if self.seeded else []
        if self.step_function is not None:
            where, _, name = self.step_function.rpartition(":")
            call = [head, *seed, "    return call_step(module, x, state, start)"]
            return [f"from {where} import {name} as call_step", *call]
        if self.state is None:
            return []
        lines = [*self.state.imports, head, *seed, f"    state = {self.state.fresh} if state is None else state"]
        if self.state.method:
            token = "x[:, 0]" if self.state.squeezed else "x"
            lines.append(f"    made = module.{self.state.name}({token}, *state)")
            lines.append("    y, *state = made if isinstance(made, tuple) else (made, *state)")
            return [*lines, f"    return {'y[:, None]' if self.state.squeezed else 'y'}, state"]
        passed = [self.x, f"{self.state.name}=state", *self.state.flags]
        if self.causal is not None:  # only a prompt needs the mask; a single token attends to all before it
            lines.append("    n = x.shape[1]")
            if self.causal[1] == "within the padding mask":
                lines += ["    allowed = torch.ones(n, n, dtype=torch.bool).tril().expand(len(x), 1, n, n)"]
                lines += [f"    mask = {MASK_FORMS[self.mask[1] if self.mask else '4-D, True = keep']}"]
                passed.append(f"{self.causal[0]}=mask if n > 1 else None")
            elif not self.causal[1].startswith("within"):
                passed.append(f"{self.causal[0]}={CAUSAL_FORMS[self.causal[1]]} if n > 1 else None")
        if self.rotary is not None:
            passed.append("position_embeddings=rotary(x, start + torch.arange(x.shape[1])[None])")
        lines += self._layout_lines(f"module({', '.join(passed)})", output=False)[:-1]
        if self.state.found_at:
            lines.append(f"    state = y{self.state.found_at}")
        return [
            *lines,
            f"    y = y{self.output or '[0]' * bool(self.state.found_at)}",
            f"    return {self._back()}, state",
        ]

    def functions(self, config: Any, *, raw: bool = False) -> tuple[Mix, Step | None]:
        """The functions that those lines define."""
        space: dict[str, Any] = {"torch": torch, "config": config}
        exec("\n".join([*self.imports(), *self.source(raw=raw), *self.step_source()]), space)
        step = space.get("step")
        return _without_exit(space["mix"]), None if step is None else _without_exit(step)

    def _mask_lines(self, *, always: bool) -> list[str]:
        assert self.mask is not None
        form = MASK_FORMS[self.mask[1]]
        if "4-D" not in self.mask[1]:
            return [f"    mask = None if valid is None else {form}"]
        lines = ["    valid = torch.ones(x.shape[:2], dtype=torch.bool) if valid is None else valid"] * always
        allowed = "valid[:, None, None, :].expand(-1, 1, n, n)"
        allowed += " & torch.ones(n, n, dtype=torch.bool).tril()" if self.causal is not None else ""
        if always:
            return [*lines, f"    allowed = {allowed}", f"    mask = {form}"]
        return [f"    allowed = None if valid is None else {allowed}", f"    mask = None if valid is None else {form}"]

    def _layout_lines(self, call: str, *, output: bool = True) -> list[str]:
        into = LAYOUTS[self.layout][0]
        lines = [] if into == "x" else [f"    x = {into}"]
        return [*lines, f"    y = {call}{self.output if output else ''}", f"    return {self._back()}"]

    def _back(self) -> str:
        return LAYOUTS[self.layout][1]

    def describe(self) -> dict[str, str]:
        """Describe the calling convention for the card."""
        if self.function is not None:
            return {"called by": self.function, **({"step": self.step_function} if self.step_function else {})}
        return {
            "input": f"{self.x} as {self.layout}",
            "output": f"the return value{self.output}",
            "padding": "no argument takes it" if self.mask is None else f"{self.mask[0]} ({self.mask[1]})",
            **({} if self.causal is None else {"causality": f"{self.causal[0]} ({self.causal[1]})"}),
            **({} if self.rotary is None else {"position_embeddings": f"made by {self.rotary[1]}"}),
            "state": str(self.state) if self.state else (self.step_function or "no argument or method takes one"),
        }


def _without_exit(call: _Call) -> _Call:
    """Let a module's exit of the process fail as any error of its does, instead of ending the audit without a word."""

    @wraps(call)
    def called(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except SystemExit as error:
            raise RuntimeError(f"SystemExit: {error}") from error

    return called  # type: ignore[return-value]
