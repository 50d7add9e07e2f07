"""Measure, and print ratios: `overhead`, the Trainer against a bare PyTorch loop."""

import argparse
import pkgutil
from importlib import import_module

from xformer import benchmark


def main() -> None:
    """Run the benchmark of the given name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question", choices=[module.name for module in pkgutil.iter_modules(benchmark.__path__)])
    import_module(f"xformer.benchmark.{parser.parse_args().question}").main()
