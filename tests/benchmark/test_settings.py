"""What cannot be measured is refused in a sentence, before anything is."""

import pkgutil
import re

import pytest

from xformer import benchmark
from xformer.benchmark.settings import READ, recorded, settings
from xformer.errors import ConfigError


@pytest.mark.parametrize(
    ("question", "override", "words"),
    [
        ("attention", "variants=[{attention: fullx}]", "attention: fullx.* did you mean full"),
        ("attention", "variants=[{attention: full, position: alibii}]", "position: alibii.* did you mean alibi"),
        ("attention", "variants=[{attention: local, windw: 4}]", "windw: 4.* did you mean window"),
        ("attention", "variants=[{attention: local, window: x}]", "window=x .* int"),
        ("attention", "variants=[{attention: full}, {attention: full}]", "twice"),
        ("attention", "variants=[{attention: full, longest: x}]", "longest in variants=x .* whole number"),
        ("attention", "variants=[full]", "variants=.* entry such as"),
        ("attention", "parameters.99.window=8", "parameters.99.window=8 .* out of range"),
        ("attention", "lengths=[]", r"lengths=\[\] .* at least one"),
        ("attention", "lengths=[0]", r"lengths=\[0\] .* 1 or more"),
        ("attention", "lengths=[-4]", r"lengths=\[-4\] .* 1 or more"),
        ("attention", "lengths=[abc]", r"lengths=\['abc'\] .* whole number"),
        ("attention", "lengths=[1,", r"lengths=\[1,"),
        ("attention", "rounds=0", "rounds=0 .* 1 or more"),
        ("attention", "rounds=true", "rounds=True .* whole number"),
        ("attention", "seconds=-1", "seconds=-1 .* 0 or more"),
        ("attention", "dtype=float17", "dtype=float17 .* bfloat16"),
        ("attention", "dtype=int8", "dtype=int8 .* bfloat16"),
        ("attention", "causal=[maybe]", "causal=.* true or false"),
        ("attention", "heads=0", "heads=0 .* 1 or more"),
        ("pairs", "pairs=[]", "at least one"),
        ("pairs", "pairs=[{attention: full, length: 8}]", "pairs has .* which lacks against"),
        ("pairs", "pairs=[{attention: full, length: 0, against: torch fused}]", "length in pairs=0 .* 1 or more"),
        ("pairs", "pairs=[{attention: full, length: x, against: torch fused}]", "length in pairs=x .* whole number"),
        ("pairs", "pairs=[{attention: full, length: 8, against: torch fusd}]", "did you mean torch fused"),
        ("training", "models=[full]", "models=.* entry such as"),
        ("training", "compiled=1", "compiled=1 .* true or false"),
        ("training", "others=GPT-2", "others=GPT-2 .* list of names"),
        ("decoding", "goal=0", "goal=0 .* above 0"),
        ("pairs", "pairs=[{attention: full, length: 8, against: torch fused, goal: x}]", "goal in pairs=x .* above 0"),
        ("training", "models=[{length: 8}]", "models has .* which lacks attention"),
        ("training", "models=[{attention: full, length: ab}]", "length in models=ab .* whole number"),
        ("training", "models=[{attention: full, length: 8, foo: 1}]", "foo: 1, .* Valid: attention, length, position"),
        ("training", "dtype=float64", "dtype=float64 .* float16"),  # which autocast does not know
        ("training", "nanogpt=/nowhere/model.py", "nanogpt=/nowhere/model.py .* model.py"),
        ("decoding", "contexts=[]", "at least one"),
        ("decoding", "contexts=[0]", "1 or more"),
        ("decoding", "new_tokens=0", "new_tokens=0 .* 1 or more"),
        ("step", "compile=[maybe]", r"compile=\['maybe'\] .* reduce-overhead"),
        ("step", "train=[]", r"train=\[\] .* at least one"),
        ("step", "steps=0", "steps=0 .* 1 or more"),
        ("overhead", "rounds=0", "rounds=0 .* 1 or more"),
        ("overhead", "dtype=bfloat16", "dtype=bfloat16 is not a setting of `overhead`; Valid: model, rounds"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(question: str, override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings(question, [override], quick=False)


@pytest.mark.parametrize("chosen", [{}, {"quick": True}, {"gpu": True}], ids=str)
@pytest.mark.parametrize("question", READ)
def test_every_question_has_settings_that_can_be_measured(question: str, chosen: dict[str, bool]) -> None:
    config = settings(question, [], **chosen)
    assert set(config) == set(READ[question])
    if chosen == {"gpu": True} and "dtype" in config:
        assert config.dtype == "bfloat16"


def test_every_question_says_what_it_reads() -> None:
    questions = pkgutil.iter_modules([f"{benchmark.__path__[0]}/questions"])
    assert {module.name for module in questions} == set(READ)


def test_what_is_recorded_has_the_parameters_of_the_files_too() -> None:
    variants = recorded(settings("attention", ["variants=[{attention: performer, features: 8}]"], quick=False))
    assert variants["dtype"] == "float32"
    assert variants["variants"] == [{"attention": "performer", "features": 8, "kernel": "exp", "redraw_interval": 1000}]
    pair = "{attention: bigbird, random_blocks: 3, length: 1024, against: BigBird (transformers)}"
    (found,) = recorded(settings("pairs", [f"pairs=[{pair}]"], quick=False))["pairs"]
    assert (found["block"], found["global_blocks"]) == (64, 1)  # as the peer is built, and as the file says


@pytest.mark.parametrize(
    ("question", "override", "whole"),
    [
        ("step", "train.attention=gla", "'train=[task=classification, attention=gla]'"),
        ("step", "train.attention.rank=4", "'train=[task=classification, attention.rank=4]'"),
        ("training", "whole.size=tiny", "architecture.dropout=0.0, size=tiny]'"),
        ("overhead", "model.size=tiny", "architecture.dropout=0.0, size=tiny]'"),
        ("attention", "lengths.longest=5", "'lengths=[512, 1024, 2048, 4096, 8192]'"),
        ("decoding", "parameters.attention=full", "'parameters=[{attention: full}, {attention: full, position: alibi}"),
    ],
)
def test_a_key_below_a_list_is_refused_with_the_list_to_write(question: str, override: str, whole: str) -> None:
    refused = rf"^{re.escape(override)} is not a setting of `{question}`: .* is a list"
    with pytest.raises(ConfigError, match=refused) as caught:
        settings(question, [override])
    assert whole in str(caught.value)


def test_an_entry_of_a_list_is_set_by_its_index() -> None:
    assert settings("step", ["train.0=task=language_modeling"]).train == ["task=language_modeling"]


@pytest.mark.parametrize(
    ("override", "words"),
    [("lenghts=[1]", "did you mean lengths"), ("lengths", "write key=value"), ("rounds=x", "rounds=x")],
)
def test_a_wrong_setting_is_refused_in_a_sentence(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings("attention", [override], quick=False)
