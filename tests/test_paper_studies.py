"""Beside each study its setting at the size of a paper: composed, checked, and never run here."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from tests.conftest import ComposeJob
from xformer.config import compatibility
from xformer.config.groups import CONF
from xformer.config.plan import Plan
from xformer.config.validate import validate
from xformer.studies.study import EXPERIMENTS, studies

PAPER = sorted(file.stem for file in (EXPERIMENTS / "paper").glob("*.yaml"))


def test_every_study_has_one() -> None:
    """The Long Range Arena's tasks are at full size as they are, and one of them is that of `listops_attentions`."""
    assert {*PAPER, "listops_attentions"} == {name for name in studies() if not name.startswith(("lra_", "paper/"))}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_every_value_of_its_grid_composes_and_goes_together(name: str, compose_job: ComposeJob) -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = compose("train", overrides=[f"experiment=paper/{name}"], return_hydra_config=True).hydra
    assert hydra.sweep.dir == f"outputs/studies/paper/{name}"
    parser = OverridesParser.create()
    grid = {
        key: [str(value) for value in parser.parse_override(f"{key}={values}").sweep_string_iterator()]
        for key, values in hydra.sweeper.params.items()
    }
    small = OmegaConf.load(EXPERIMENTS / f"{name}.yaml").hydra.sweeper.params
    assert set(grid) == set(small)
    assert len(grid["seed"]) >= 3
    baseline = compose_job(f"experiment=paper/{name}", "trainer.accelerator=cpu").config.study.baseline
    settings = set()
    for cell in range(max(map(len, grid.values()))):
        chosen = [f"{key}={values[cell % len(values)]}" for key, values in grid.items()]
        job = compose_job(f"experiment=paper/{name}", *chosen, "trainer.accelerator=cpu")
        validate(job.config)
        compatibility.check_compatibility(job.config, job.choices)
        Plan.of(job.config)
        settings |= {*chosen, f"attention={job.shown_choices['attention']}"}
        assert job.config.study.expected == "hours on a GPU for each cell"
    assert baseline in settings
