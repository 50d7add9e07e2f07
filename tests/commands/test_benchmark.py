"""What cannot be measured or kept ends `xformer benchmark` in a sentence."""

from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from xformer.benchmark.questions import startup
from xformer.commands.benchmark import main
from xformer.errors import ConfigError, RunError


@pytest.mark.parametrize("below", ["", "folder"])
def test_a_file_in_place_of_the_output_is_found_before_anything_is_measured(
    below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "results"
    file.write_text("")
    words = ["xformer benchmark", "startup", "rounds=1000000", "--output", str(file / below)]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(ConfigError, match=f"{file} is a file; use a directory"):
        main()


def test_a_device_that_is_too_small_is_said_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(config: DictConfig, *, peers: bool) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(startup, "measure", measure)
    monkeypatch.setattr("sys.argv", ["xformer benchmark", "startup", "--output", str(tmp_path / "results")])
    with pytest.raises(RunError, match="`startup` does not fit into the device's memory"):
        main()
