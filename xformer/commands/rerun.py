"""Train from the resolved configuration in DIRECTORY/rerun.json, as reproduce --wandb does."""

import argparse
from pathlib import Path


def main() -> None:
    """Train in DIRECTORY/run; a run that finished there is left as it is."""
    parser = argparse.ArgumentParser(description=f"{__doc__} The run is stored in DIRECTORY/run.")
    parser.add_argument("directory", type=Path, metavar="DIRECTORY", help="the directory that holds rerun.json")
    directory = parser.parse_args().directory

    from xformer.training.rerun import read_rerun
    from xformer.training.run import run

    run(read_rerun(directory))
