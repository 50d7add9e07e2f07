"""Write with a trained model: go on from a prompt, or answer a source sequence."""

import argparse
from pathlib import Path

BATCH = 32
"""Prompts of a file that are written at a time."""


def main() -> None:
    """Write for one prompt as it comes, or for each line of a file."""
    options = _options()
    from xformer.core import console, devices
    from xformer.core.denormals import flush_denormals
    from xformer.runs.open_run import open_run
    from xformer.runs.text_generator import GenerationSettings, TextGenerator
    from xformer.training.console_report import quiet_lightning

    flush_denormals()
    quiet_lightning()
    values = vars(options)
    run, prompt, file = (values.pop(name) for name in ("run", "prompt", "file"))
    settings = GenerationSettings(**values)
    prompts = [prompt] if file is None else _lines(file)
    opened = open_run(run)
    opened.task.to(devices.default_device())
    writer = TextGenerator(opened, settings, console.info_on_stderr)
    encoded = writer.encode(prompts)
    if file is None:
        for piece in writer.stream(encoded[0]):
            print(piece, end="", flush=True)
        print()
        return
    for first in range(0, len(encoded), BATCH):
        for text in writer.write(encoded[first : first + BATCH], first):
            print(text, end="\n\n" if writer.task.continues else "\n", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=f"{__doc__} Greedy, unless --temperature, --top-k or --top-p asks for samples, --beams to search."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run directory, such as outputs/DATE/TIME")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", help="the text to go on from, or the source to read")
    source.add_argument("--file", type=Path, help="a file with a prompt in every line, UTF-8")
    parser.add_argument("--max-new", type=int, help="tokens to write at most; default: the training data's longest")
    parser.add_argument("--temperature", type=float, help="below 1 sharpens the distribution")
    parser.add_argument("--top-k", type=int, help="draw from so many most likely tokens")
    parser.add_argument("--top-p", type=float, help="draw from the most likely tokens with this share of probability")
    parser.add_argument("--repetition-penalty", type=float, default=1.0, help="above 1: less of what is there already")
    parser.add_argument("--beams", type=int, default=1, help="hypotheses of a beam search")
    parser.add_argument("--length-penalty", type=float, default=1.0, help="a sum of log-probabilities / length ** this")
    parser.add_argument("--early-stop", action="store_true", help="stop at as many finished hypotheses as beams")
    parser.add_argument("--seed", type=int, default=0, help="of the first prompt's samples; the next has the next")
    return parser.parse_args()


def _lines(file: Path) -> list[str]:
    from xformer.errors import DataError
    from xformer.tokenizers.utf8 import decode

    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"--file {file} cannot be read ({error.strerror}); give a text file in UTF-8.") from error
    text = decode(content, f"--file {file}").replace("\r\n", "\n").replace("\r", "\n")
    lines = text.removesuffix("\n").split("\n")
    if lines == [""]:
        raise DataError(f"--file {file} is empty; write a prompt in every line.")
    return lines
