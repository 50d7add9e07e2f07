"""Texts from typed prompts: what is streamed is what is written, and what is read as something else is told."""

import pytest

from tests.conftest import Trained
from xformer.errors import ConfigError
from xformer.runs.open_run import open_run
from xformer.runs.text_generator import GenerationSettings, TextGenerator
from xformer.tokenizers.character import Character


def test_the_pieces_of_a_stream_are_the_text(trained: Trained) -> None:
    opened = open_run(trained("prose"))
    for settings in (GenerationSettings(temperature=2.0), GenerationSettings(beams=2)):
        writer = TextGenerator(opened, settings, lambda remark: None)
        prompts = writer.encode(["Käse"])
        pieces = list(writer.stream(prompts[0]))
        assert "".join(pieces) == writer.write(prompts)[0]
        assert (len(pieces) > 5) is (settings.beams == 1)


def test_a_prompt_that_is_read_as_another_is_shown_as_it_is_read(trained: Trained) -> None:
    opened, told = open_run(trained("prose")), list[str]()
    opened.data.tokenizer = Character()  # type: ignore[attr-defined]
    opened.data.tokenizer.train(["A b"])  # type: ignore[attr-defined]
    TextGenerator(opened, GenerationSettings(), told.append).encode(["A b", "A \N{SNOWMAN} b"])
    assert told == ["The model reads '\N{SNOWMAN} b' of the prompt as '\N{REPLACEMENT CHARACTER} b'."]


@pytest.mark.parametrize(("key", "value"), [("seed", -1), ("beams", 0), ("top_p", 2.0), ("top_k", 0)])
def test_settings_out_of_range_are_refused(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{key}={value}"):
        GenerationSettings(**{key: value})
