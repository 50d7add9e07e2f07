"""A card as Markdown and as JSON."""

import json

import pytest

from tests.audit.made import subject
from xformer.audit.card import CONTRACTS, Card
from xformer.audit.examine import examine


@pytest.fixture(scope="module")
def card() -> Card:
    return examine(subject("Unmasked"), seeds=1, longest=0)


def test_markdown_holds_every_contract_and_a_program_for_what_does_not_hold(card: Card) -> None:
    page = card.to_markdown()
    assert page.startswith("# `tests.audit.planted.Unmasked`\n")
    for contract in CONTRACTS:
        assert f"(`{contract}`)" in page
    assert page.count("```python") == sum(finding.verdict == "no" for finding in card.findings) == 3
    assert all(line.count("|") == 4 for line in page.splitlines() if line.startswith("| ") and "(`" in line)


def test_json_holds_the_same(card: Card) -> None:
    read = json.loads(card.to_json())
    assert {finding["contract"]: finding["verdict"] for finding in read["findings"]} == {
        finding.contract: finding.verdict for finding in card.findings
    }
    assert read["sizes"]["trained"] == 4 * 16 * 17
    assert read["called"]["padding"] == "mask (True = keep)"
    assert card.finding("rows").verdict == "yes"
