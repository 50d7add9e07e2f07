"""Draw the attention maps of a trained run: pictures, a page and the numbers."""

import argparse
from pathlib import Path


def main() -> None:
    """Read an input, and write its attention maps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the run's directory")
    parser.add_argument("--input", required=True, help="the input of the model; for a pair of sequences, the first")
    parser.add_argument("--target", help="for a pair of sequences, the second (default: what the model writes)")
    parser.add_argument("--output", type=Path, help="directory for the files (default: RUN/attention)")
    asked = parser.parse_args()

    from xformer.core import console
    from xformer.core.denormals import flush_denormals
    from xformer.inspection.attention_files import write_attention_maps
    from xformer.inspection.attention_maps import attention_maps
    from xformer.inspection.attention_page import influence_warnings
    from xformer.inspection.model_input import read_model_input
    from xformer.runs.open_run import open_run

    flush_denormals()
    run = open_run(asked.run)
    reading = read_model_input(run.task, run.data, asked.input, asked.target)
    maps = attention_maps(run.task.model, reading.forward)
    title = f"Attention maps of {asked.run.resolve().name}"
    for path in write_attention_maps(asked.output or asked.run / "attention", title, asked.input, maps, reading.axes):
        print(path)
    for sentence in influence_warnings(maps):
        console.info_on_stderr(sentence)
