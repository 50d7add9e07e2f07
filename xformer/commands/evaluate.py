"""Evaluate a trained model on its own data, or on other data."""

import argparse
from pathlib import Path


def main() -> None:
    """Print the metrics, and write them to a file if one is named; the run itself is not changed."""
    parser = argparse.ArgumentParser(description=f"{__doc__} The run's own tokenizer is used as it is.")
    parser.add_argument("run", type=Path, metavar="RUN", help="the run directory, such as outputs/DATE/TIME")
    parser.add_argument("--data", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of the run's data")
    parser.add_argument("--split", choices=["val", "test"], help="default: both")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write the metrics, as JSON")
    options = parser.parse_args()

    from xformer.core import console
    from xformer.core.denormals import flush_denormals
    from xformer.runs.open_run import open_run
    from xformer.training.console_report import quiet_lightning
    from xformer.training.evaluate import evaluate

    flush_denormals()
    quiet_lightning()
    found = evaluate(open_run(options.run), options.data, options.split)
    console.metrics(found.metrics, {"model": found.checkpoint, "data": found.description})
    if options.output is not None:
        found.save(options.output)
