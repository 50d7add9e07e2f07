"""The Long Range Arena's studies: the settings they claim, and a fast run of each on small data."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.conftest import SMALL, ComposeJob
from xformer.config import compatibility
from xformer.config.plan import Plan
from xformer.config.validate import validate
from xformer.runs.summary import read_summary
from xformer.studies.study import EXPERIMENTS, studies
from xformer.training.run import run

# Steps, warmup and batch of Nystromformer's code; sequence length of the arena.
SETTINGS = {
    "lra_listops": (5_000, 1_000, 32, 2_000),
    "lra_text": (20_000, 8_000, 32, 4_000),
    "lra_retrieval": (30_000, 800, 32, 4_000),
    "lra_image": (35_000, 175, 256, None),
    "lra_pathfinder": (62_400, 312, 256, None),
}
ATTENTIONS = ["full", "local", "sparse", "linformer", "performer", "bigbird"]


def texts(folder: Path) -> list[str]:
    (folder / "train.tsv").write_text("text\tlabel\n" + "a fine film\t1\na dull one\t0\n" * 40)
    return ["data.dataset=null", f"data.files={folder}", "data.max_length=24"]


def pairs(folder: Path) -> list[str]:
    """As the arena's files are: no first line, a label, two ids and two texts."""
    for name in ("train", "dev", "test"):
        lines = io.StringIO()
        rows = [(number % 2, f"P{number}", f"Q{number}", f"paper {number}", "a longer text") for number in range(48)]
        csv.writer(lines, delimiter="\t", lineterminator="\n").writerows(rows)
        (folder / f"{name}.tsv").write_text(lines.getvalue())
    return [f"data.files={folder}", "data.max_length=24"]


def images(folder: Path) -> list[str]:
    from datasets import Dataset, DatasetDict, Features, Image
    from datasets import Value as Kind
    from PIL import Image as Picture

    rows = {"img": [Picture.new("RGB", (6, 6), (n, 0, 9)) for n in range(80)], "label": [n % 2 for n in range(80)]}
    part = Dataset.from_dict(rows, features=Features({"img": Image(), "label": Kind("int64")}))
    DatasetDict(train=part, test=part.select(range(20))).save_to_disk(folder)
    return [f"data.dataset={folder}"]


SMALL_DATA: dict[str, Callable[[Path], list[str]]] = {
    "lra_listops": lambda folder: [
        *("data.train_size=64", "data.val_size=32", "data.test_size=32"),
        *("data.min_length=10", "data.max_length=60", "data.max_depth=4"),
    ],
    "lra_text": texts,
    "lra_retrieval": pairs,
    "lra_image": images,
    "lra_pathfinder": lambda folder: [
        *("data.train_size=24", "data.val_size=8", "data.test_size=8"),
        *("data.contour_length=4", "data.distractor_length=2"),
    ],
}


def test_all_five_tasks_are_there() -> None:
    assert {name for name in studies() if name.startswith("lra_")} == {*SETTINGS} == {*SMALL_DATA}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_study_has_the_settings_that_are_claimed(name: str, compose_job: ComposeJob) -> None:
    grid = OmegaConf.load(EXPERIMENTS / f"{name}.yaml").hydra.sweeper.params
    assert (grid.attention.split(","), grid.seed) == (ATTENTIONS, "0,1,2")
    job = compose_job(f"experiment={name}")
    validate(job.config)
    compatibility.check_compatibility(job.config, job.choices)
    plan, config = Plan.of(job.config), job.config
    size = config.size
    assert (size.layers, size.d_model, size.heads, size.feed_forward) == (2, 64, 2, 128)
    assert (config.architecture.dropout, config.task.pooling) == (0.1, "mean")
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (1e-4, 0)
    steps, warmup, batch, length = SETTINGS[name]
    assert (config.trainer.max_steps, config.data.batch_size) == (steps, batch)
    assert length is None or config.data.max_length == length
    rates = [plan.schedule(step, steps) for step in (0, warmup - 1, (warmup + steps) // 2, steps)]
    assert rates == [pytest.approx(value, abs=1e-3) for value in (1 / warmup, 1, 0.5, 0)]


@pytest.mark.parametrize(
    ("name", "attention"), list(zip(SETTINGS, ["sparse", "linformer", "performer", "local", "bigbird"], strict=True))
)
def test_a_cell_runs_on_small_data(name: str, attention: str, compose_job: ComposeJob, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    small = [*SMALL, *SMALL_DATA[name](folder), "data.batch_size=8", "trainer.max_steps=2"]
    job = compose_job(f"experiment={name}", f"attention={attention}", *small)
    run(job)
    summary = read_summary(job.directory)
    assert summary.status == "finished"
    assert {"val/accuracy", "test/accuracy"} <= set(summary.metrics)
    assert "majority class" in summary.floors
