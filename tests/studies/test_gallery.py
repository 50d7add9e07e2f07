"""The page over all studies is that of the committed tables."""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from xformer.commands import gallery
from xformer.errors import ConfigError
from xformer.studies.comparison import compare
from xformer.studies.figure_style import GALLERY
from xformer.studies.gallery import PAGE, gallery_page, table_hash, verdict_sentence, write_gallery
from xformer.studies.means_figure import means_figure
from xformer.studies.study import Study, studies

FOLDER = Path(__file__).parents[2] / "docs" / "studies"
FOUND = [Study.of(name) for name in studies()]
RECORDED = [study for study in FOUND if study.table is not None]
TEXT = (FOLDER / PAGE).read_text(encoding="utf-8")


def test_the_page_is_fresh() -> None:
    assert gallery_page(FOUND) == TEXT, "a table or a study changed: xformer gallery"


@pytest.mark.parametrize("study", RECORDED, ids=lambda study: study.name)
def test_a_figure_is_of_the_table_that_is_there(study: Study) -> None:
    text = (FOLDER / f"{study.name}.svg").read_text(encoding="utf-8")
    assert f"<!-- of the table {table_hash(study)} -->" in text, "the table changed: xformer gallery"
    words = {node.text for node in ElementTree.fromstring(text.split("-->\n", 1)[1]).iter() if node.text}
    for row in compare(study.committed(), study.metric, study.baseline).rows:
        parts = row.name.split()
        assert any(row.name in word or any(part == word for part in parts) for word in words), row.name


def test_there_is_no_figure_without_a_study() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {PAGE, *(f"{study.name}.svg" for study in RECORDED)}
    assert {*re.findall(r"\]\((\S+\.svg)\)", TEXT)} == {f"{study.name}.svg" for study in RECORDED}


@pytest.mark.parametrize("study", RECORDED, ids=lambda study: study.name)
def test_a_study_has_its_question_verdict_figure_cost_and_command(study: Study) -> None:
    (entry,) = re.findall(rf"^## {study.name}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    found = compare(study.committed(), study.metric, study.baseline, study.plan)
    assert study.question in entry
    assert f"]({study.name}.svg)" in entry
    assert f"Cost: {sum(len(row.values) for row in found.rows)} runs, " in entry
    assert f"Expected: {study.expected}." in entry
    assert f"```bash\npython train.py -m experiment={study.name}\n```" in entry
    verdict = verdict_sentence(found)
    assert verdict in entry
    for row in found.rows:
        if row.verdict != "baseline":
            said = re.findall(rf"{row.verdict}[^:]*: (.*?)(?:;|\. | \()", verdict, re.IGNORECASE)
            own = [key for key in found.differ.named if f" {key}=" in f" {found.baseline}"]
            assert any(row.group.get(own[0]) in names for names in said), row.name


def test_a_study_without_a_table_is_named() -> None:
    rest = TEXT.partition("## Without a table yet")[2]
    assert {*re.findall(r"^\| `(\S+)` \|", rest, re.MULTILINE)} == {s.name for s in FOUND if s.table is None}


def test_the_means_are_drawn_with_their_seeds() -> None:
    study = Study.of("retrieval_rank")
    found = compare(study.committed(), study.metric, study.baseline)
    (axes,) = means_figure(found, GALLERY).axes
    seeds = [sorted(line.get_xdata()) for line in axes.get_lines() if line.get_gid() == "seed"]
    means = [line.get_xdata()[0] for line in axes.get_lines() if line.get_gid() == "group"]
    assert seeds == [sorted(row.values.values()) for row in found.rows]
    assert means == [row.mean for row in found.rows]
    assert [line.get_xdata()[0] for line in axes.get_lines() if str(line.get_label()).startswith("any value")] == [
        0.125
    ]


def test_the_command_writes_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("xformer.studies.gallery.studies", lambda: ["retrieval_rank"])
    monkeypatch.setattr(sys, "argv", ["xformer gallery", "-o", str(tmp_path / "new")])
    gallery.main()
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / "new" / name) for name in ("retrieval_rank.svg", PAGE)
    ]
    again = (tmp_path / "new" / "retrieval_rank.svg").read_text(encoding="utf-8")
    write_gallery(tmp_path / "new")
    assert (tmp_path / "new" / "retrieval_rank.svg").read_text(encoding="utf-8") == again


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("xformer.studies.gallery.studies", lambda: [])
    with pytest.raises(ConfigError, match="cannot be written"):
        write_gallery(tmp_path / "file" / "studies")
