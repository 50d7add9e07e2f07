"""Measure speed, memory and energy of attention, training, decoding, the Trainer and start-up."""

import argparse
import pkgutil
from dataclasses import replace
from datetime import datetime
from importlib import import_module
from pathlib import Path

from xformer import benchmark


def main() -> None:
    """Run one benchmark, print its table, and save it with a plot."""
    from torch import OutOfMemoryError

    from xformer.benchmark.settings import recorded, settings
    from xformer.core.console import info
    from xformer.core.denormals import flush_denormals
    from xformer.errors import ConfigError, RunError

    questions = [module.name for module in pkgutil.iter_modules([f"{benchmark.__path__[0]}/questions"])]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question", choices=questions)
    parser.add_argument(
        "overrides", nargs="*", default=[], help="overrides of conf/benchmark.yaml, such as lengths=[1024,2048]"
    )
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--quick", action="store_true", help="short lengths and few rounds: a minute without --peers")
    chosen.add_argument("--gpu", action="store_true", help="the settings of a GPU's table: bf16, long, with goals")
    parser.add_argument("--peers", action="store_true", help="also measure other installed implementations")
    parser.add_argument("--output", type=Path, help="directory for the results (default: outputs/benchmark/DATE-TIME)")
    arguments = parser.parse_intermixed_args()
    flush_denormals()
    config = settings(arguments.question, arguments.overrides, quick=arguments.quick, gpu=arguments.gpu)
    directory = arguments.output or Path("outputs/benchmark") / datetime.now().strftime("%Y-%m-%d-%H-%M-%S")
    for path in (directory, *directory.parents):
        if path.exists() and not path.is_dir():
            raise ConfigError(f"--output {directory} cannot be created, as {path} is a file; use a directory.")
    question = import_module(f"xformer.benchmark.questions.{arguments.question}")
    try:
        results = replace(question.measure(config, peers=arguments.peers), settings=recorded(config))
    except OutOfMemoryError as error:
        raise RunError(f"`{arguments.question}` does not fit into the device's memory; use smaller sizes.") from error
    results.print()
    for path in results.save(directory):
        info(f"written    {path}")
