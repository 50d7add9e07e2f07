"""A hybrid's life: trained, recorded, opened again, decoded, mapped, matched and compared by a name of its own."""

import torch
from omegaconf import OmegaConf
from torch.testing import assert_close

from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from xformer.architecture.stack import Stack
from xformer.config.plan import Plan
from xformer.config.validate import validate
from xformer.inspection.attention_maps import attention_maps
from xformer.runs.open_run import open_run
from xformer.runs.recorded_run import load_runs
from xformer.runs.summary import read_summary
from xformer.studies.grouping import differences, group_runs
from xformer.training.matching import match_size
from xformer.training.run import run

LAYERS = "attention.layers=[{local:{window:4}},{full:{position:none}}]"
HYBRID = [*SMALL, "task=language_modeling", "size.layers=4", "attention=hybrid", "position=rotary", "data.block=32"]


def test_it_trains_opens_decodes_and_is_drawn(compose_job: ComposeJob, capsys) -> None:
    job = compose_job(*HYBRID, LAYERS, "trainer.max_steps=2")
    assert "attention=hybrid(local(window=4)+full(position=none))" in job.name
    run(job)
    name = "hybrid(local(window=4)+full(position=none))"
    assert f"attention={name}" in capsys.readouterr().out.splitlines()[1]
    assert read_summary(job.directory).attention == {"self": name}
    opened = open_run(job.directory)
    model, data = opened.task.model, opened.data
    assert isinstance(model, Stack)
    assert [mixer.variant for mixer in model.tower.mixers[0]] == ["Local", "Full"] * 2
    stored = OmegaConf.load(job.directory / "config.yaml")
    assert OmegaConf.to_container(stored.attention.layers) == [
        {"local": {"window": 4}},
        {"full": {"position": "none"}},
    ]
    tokens = torch.randint(data.spec.vocabulary, (2, 32))
    with torch.no_grad():
        states, whole = model.init_states(32), model(tokens)
        steps = torch.cat([model(part, states=states) for part in tokens.split([9, *[1] * 23], dim=1)], dim=1)
    assert_close(steps, whole, atol=1e-5, rtol=1e-4)
    maps = attention_maps(model, lambda: model(tokens))
    assert [(each.layer, each.variant) for each in maps] == [(0, "Local"), (1, "Full"), (2, "Local"), (3, "Full")]
    assert all(each.exact for each in maps)
    far = [float(each.weights.tril(-5).abs().max()) for each in maps]
    assert far[0] == far[2] == 0 < min(far[1], far[3])


def test_runs_are_one_configuration_by_what_they_mean_and_named_apart(compose_job: ComposeJob, tmp_path) -> None:
    layers = {
        "names": "[local,local,local,full]",
        "same": "[{local:{window:64}},local,local,{full:{}}]",
        "other": "[local,full]",
        "longer": "[local,full,local,full]",
    }
    small = [*SMALL, *SMALL_LISTOPS, "attention=hybrid", "size.layers=4", "trainer.max_steps=1"]
    for name, entries in layers.items():
        run(compose_job(*small, f"attention.layers={entries}", f"seed={len(name)}", directory=tmp_path / name))
    run(compose_job(*small, "attention=full", directory=tmp_path / "full"))
    groups = group_runs(load_runs([tmp_path]))
    assert differences(groups).named == ("attention",)
    found = {group.get("attention"): len(group.runs) for group in groups}
    assert found == {"hybrid(3xlocal+full)": 2, "hybrid(local+full)": 2, "full": 1}


def test_a_hybrid_is_matched_to_a_plain_model(compose_job: ComposeJob) -> None:
    entries = "attention.layers=[{linformer:{rank:8}},full]"
    small = [*SMALL, *SMALL_LISTOPS, "attention=hybrid", "size.layers=4", entries, "match=parameters"]
    job = compose_job(*small)
    validate(job.config)
    plan = Plan.read(job.config, job.choices)
    plan.load_data()
    found = match_size(plan).matched
    assert found is not None
    assert found.now < found.was
    assert abs(found.difference) < 1
