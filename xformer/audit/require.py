"""Contracts that `--require` demands of a module; the audit fails if they do not hold."""

from xformer.audit.card import CONTRACTS, Card
from xformer.errors import ConfigError, RunError

GROUPS = {"padding": ("padding-right", "padding-left")}
"""Names that stand for several contracts."""


def required(names: str) -> tuple[str, ...]:
    """The contracts that `causal,padding` names.

    Raises:
        ConfigError: a name is not a contract.
    """
    found: list[str] = []
    for name in filter(None, (word.strip() for word in names.split(","))):
        if name not in CONTRACTS and name not in GROUPS:
            raise ConfigError(f"--require {name} is not a contract; use one of {', '.join([*GROUPS, *CONTRACTS])}.")
        found += GROUPS.get(name, (name,))
    return tuple(found)


def check(card: Card, contracts: tuple[str, ...]) -> None:
    """Check that all of these contracts hold.

    Raises:
        RunError: a contract does not hold or could not be tested.
    """
    verdicts = {finding.contract: finding for finding in card.findings}
    for contract in contracts:
        finding = verdicts.get(contract)
        if finding is None or finding.verdict != "yes":
            detail = "not tested" if finding is None else f"{finding.verdict}, {finding.detail}"
            raise RunError(f"{card.name} does not satisfy `{contract}`, which --require demands: {detail}.")
