"""Generate with a trained model: continue a prompt, or write the target of a source sequence."""

import argparse
from pathlib import Path

BATCH = 32
"""The number of prompts of a file per batch."""


def main() -> None:
    """Generate for one prompt, streaming the tokens, or for each line of a file."""
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
    source.add_argument("--prompt", help="the text to continue, or the source sequence")
    source.add_argument("--file", type=Path, help="a UTF-8 file with one prompt per line")
    parser.add_argument(
        "--max-new", type=int, help="maximum number of new tokens (default: the training data's longest)"
    )
    parser.add_argument("--temperature", type=float, help="below 1 sharpens the distribution")
    parser.add_argument("--top-k", type=int, help="sample from the K most likely tokens")
    parser.add_argument("--top-p", type=float, help="sample from the most likely tokens with this total probability")
    parser.add_argument(
        "--repetition-penalty", type=float, default=1.0, help="above 1, tokens that occurred already become less likely"
    )
    parser.add_argument("--beams", type=int, default=1, help="number of beams of a beam search")
    parser.add_argument(
        "--length-penalty",
        type=float,
        default=1.0,
        help="exponent: hypotheses are ranked by log-probability / length ** this",
    )
    parser.add_argument(
        "--early-stop", action="store_true", help="stop as soon as as many hypotheses as beams are finished"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the first prompt's samples; each further prompt adds 1"
    )
    return parser.parse_args()


def _lines(file: Path) -> list[str]:
    from xformer.errors import DataError
    from xformer.tokenizers.utf8 import decode_utf8

    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"--file {file} cannot be read ({error.strerror}); use a text file in UTF-8.") from error
    text = decode_utf8(content, f"--file {file}").replace("\r\n", "\n").replace("\r", "\n")
    lines = text.removesuffix("\n").split("\n")
    if lines == [""]:
        raise DataError(f"--file {file} is empty; write one prompt per line.")
    return lines
