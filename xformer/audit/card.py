"""The card of an audit, as Markdown and JSON: contracts that hold, programs that show violations, and costs."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["yes", "no", "untested"]
CONTRACTS = {
    "causal": "no output depends on a later token",
    "padding-right": "padding on the right does not affect other outputs",
    "padding-left": "padding on the left does not affect other outputs",
    "padding-gradient": "gradients are finite with padding",
    "rows": "rows of a batch are independent",
    "rows-train": "rows are independent in train mode",
    "batch-size": "a row alone equals the same row in a batch",
    "deterministic": "eval mode is deterministic",
    "reproducible": "train mode is reproducible with a seed",
    "step": "token by token equals the whole sequence",
    "finite": "outputs and gradients are finite at extreme inputs",
}
"""The contracts that `--require` accepts, with their descriptions."""


@dataclass(frozen=True)
class Finding:
    """The result of testing one contract.

    Attributes:
        contract: a key of CONTRACTS.
        verdict: whether it holds.
        detail: the evidence.
        error: the largest difference found, relative to the largest output.
        tolerance: the difference that rounding can explain.
        snippet: if the contract does not hold, a program that prints the difference for the smallest failing input.
    """

    contract: str
    verdict: Verdict
    detail: str
    error: float | None = None
    tolerance: float | None = None
    snippet: str | None = None


@dataclass(frozen=True)
class Card:
    """The results of auditing a module.

    Attributes:
        name: the class, as typed.
        versions: the versions of the class's package, torch and Python.
        arguments: the constructor's arguments.
        guessed: names of arguments that the audit chose.
        called: the calling convention found.
        dtype: the type used for structural contracts.
        seeds: the number of draws of weights and inputs.
        lengths: a description of the lengths that it accepts.
        findings: the results by contract.
        reach: a description of how far an output reads.
        precision: errors by type, or the reason why there are none.
        roundings: the errors in units of the type's rounding.
        costs: descriptions of the growth of time, memory and state.
        by_length: the measured values of these.
        sizes: the numbers of parameters and buffer elements.
    """

    name: str
    versions: Mapping[str, str]
    arguments: Mapping[str, Any]
    guessed: tuple[str, ...]
    called: Mapping[str, str]
    dtype: str
    seeds: int
    lengths: str
    findings: tuple[Finding, ...]
    reach: str
    precision: Mapping[str, float | str]
    roundings: Mapping[str, float]
    costs: Mapping[str, str]
    by_length: Mapping[str, Mapping[int, float]]
    sizes: Mapping[str, int]
    command: str = field(default="")

    def finding(self, contract: str) -> Finding:
        """The finding of a contract."""
        return next(finding for finding in self.findings if finding.contract == contract)

    def to_json(self) -> str:
        """The card as JSON; non-finite numbers are null."""
        return json.dumps(_plain(asdict(self)), indent=2) + "\n"

    def to_markdown(self) -> str:
        """The card as Markdown."""
        made = ", ".join(f"{key}={value}" for key, value in self.arguments.items()) or "nothing"
        lines = [
            f"# `{self.name}`",
            "",
            *(["```bash", self.command, "```", ""] if self.command else []),
            f"{', '.join(f'{name} {version}' for name, version in self.versions.items())}. Built with {made}"
            + (f" ({', '.join(self.guessed)}: chosen by the audit)" if self.guessed else "")
            + f". Structure is measured in {self.dtype}, over {self.seeds} draws of weights and inputs; "
            + f"{self.lengths}.",
            "",
            "| contract | holds | evidence |",
            "|---|---|---|",
            *(f"| {CONTRACTS[f.contract]} (`{f.contract}`) | {f.verdict} | {_cell(f.detail)} |" for f in self.findings),
            "",
            "| | |",
            "|---|---|",
            f"| reach | {self.reach} |",
            *(f"| error in {name} | {self._error(name)} |" for name in self.precision),
            *(f"| {name} | {value} |" for name, value in self.costs.items()),
            f"| parameters | {self.sizes['trained']:,} trained, {self.sizes['fixed']:,} fixed; "
            f"{self.sizes['buffers']:,} numbers in buffers |",
            *(f"| {name} | {_cell(value)} |" for name, value in self.called.items()),
            "",
        ]
        if self.by_length:
            lengths = sorted({length for values in self.by_length.values() for length in values})
            lines += [
                f"| n | {' | '.join(map(str, lengths))} |",
                "|---" * (len(lengths) + 1) + "|",
                *(
                    f"| {name} | {' | '.join(f'{values[n]:.3g}' if n in values else '' for n in lengths)} |"
                    for name, values in self.by_length.items()
                ),
                "",
            ]
        for finding in self.findings:
            if finding.snippet:
                says = f"Not `{finding.contract}`: {finding.detail}"
                lines += [f"## {CONTRACTS[finding.contract].capitalize()}: no", "", f"{says}.", "", "```python"]
                lines += [finding.snippet.rstrip(), "```", ""]
        return "\n".join(lines)

    def _error(self, name: str) -> str:
        error = self.precision[name]
        return error if isinstance(error, str) else f"{error:.1e}, or {self.roundings[name]:.1f} roundings"


def _cell(words: str) -> str:
    return words.replace("|", "\\|")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
