"""Audit any module: does it respect causality, padding, the batch, decoding and 16-bit precision?"""

import argparse
from pathlib import Path


def main() -> None:
    """Build the module, find out how it is called, measure, and print the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", metavar="PACKAGE.CLASS", help="a torch.nn.Module, as torch.nn.MultiheadAttention")
    parser.add_argument(
        "arguments",
        nargs="*",
        default=[],
        metavar="key=value",
        help="arguments of its constructor; adapter.NAME=VALUE sets how it is called",
    )
    parser.add_argument(
        "--call",
        metavar="MODULE:FUNCTION",
        help="a function (module, x, valid) -> outputs, if none is found automatically",
    )
    parser.add_argument(
        "--step", metavar="MODULE:FUNCTION", help="a function (module, x, state, start) -> outputs and new state"
    )
    parser.add_argument(
        "--require", metavar="NAMES", default="", help="fail unless these properties hold, such as causal,padding"
    )
    parser.add_argument("--seeds", type=int, default=3, help="random draws of weights and inputs (default: 3)")
    parser.add_argument("--longest", type=int, default=2048, help="longest sequence for time and memory; 0 skips both")
    parser.add_argument("--no-time", action="store_true", help="do not measure time, for a machine that others use too")
    parser.add_argument("--output", type=Path, help="directory for the card as Markdown and JSON")
    passed = parser.parse_intermixed_args()

    import shlex
    import sys
    from dataclasses import replace

    from xformer.audit.examine import examine, quietly
    from xformer.audit.finding import find_calling
    from xformer.audit.require import check, required
    from xformer.audit.target import make_target, parse
    from xformer.core.console import info
    from xformer.core.program import with_plugins
    from xformer.errors import ConfigError

    if passed.seeds < 1 or passed.longest < 0:
        raise ConfigError(
            f"--seeds={passed.seeds} --longest={passed.longest}: pass 1 seed or more, and 0 or more tokens."
        )
    contracts = required(passed.require)
    options = [word.removeprefix("adapter.") for word in passed.arguments if word.startswith("adapter.")]
    sys.path.insert(0, str(Path.cwd()))  # a module of the user's own, as python -m finds it
    with quietly():
        target = make_target(passed.target, [word for word in passed.arguments if not word.startswith("adapter.")])
        subject = find_calling(target, parse(options), passed.call, passed.step)
    shown = [passed.target, *passed.arguments, *([f"--call={passed.call}"] if passed.call else [])]
    card = replace(
        examine(subject, seeds=passed.seeds, longest=passed.longest, timed=not passed.no_time),
        command=f"{with_plugins('xformer audit')} {shlex.join(shown)}",
    )
    print(card.to_markdown())
    if passed.output:
        passed.output.mkdir(parents=True, exist_ok=True)
        name = passed.target.replace(":", ".")
        for path, text in ((f"{name}.md", card.to_markdown()), (f"{name}.json", card.to_json())):
            (passed.output / path).write_text(text, encoding="utf-8")
            info(f"written    {passed.output / path}")
    check(card, contracts)
