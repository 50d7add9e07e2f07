"""The entries of `variants`, `parameters`, `models` and `pairs`: reading, checking and labelling."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from xformer.attention.base import Attention
from xformer.attention.mixer import TokenMixer
from xformer.benchmark.equivalence import check_same_function, peer_named
from xformer.benchmark.kinds import COUNT, GOAL, TRUTH, WORD, Kind
from xformer.config.groups import groups, load_option, nearest, option_nodes
from xformer.config.validate import target, validate
from xformer.errors import ConfigError

Entry = Mapping[str, Any]
FORMS: dict[str, dict[str, Kind]] = {
    "variants": {"longest": COUNT},
    "parameters": {"longest": COUNT},
    "models": {"length": COUNT},
    "pairs": {"length": COUNT, "against": WORD, "causal": TRUTH, "goal": GOAL, "memory_goal": GOAL},
}
"""By list: the keys of an entry besides its attention, the attention's parameters and its position scheme."""
_OPTIONAL = {"longest", "causal", "goal", "memory_goal"}
_CHOICES = ("attention", "position")


def entries(config: DictConfig, key: str) -> list[dict[str, Any]]:
    """The checked entries of a list of the settings."""
    found = OmegaConf.to_container(config[key])
    assert isinstance(found, list)
    return found


def found_variants(config: DictConfig) -> list[dict[str, Any]]:
    """An entry for each attention and token mixer of `conf/attention`, ours and the plugins'.

    Options in `parameters` have the entries listed there, possibly several. Hybrids are left out.
    """
    stated = entries(config, "parameters")
    names = [name for name, node in option_nodes("attention") if isinstance(target(node), type)]
    first = dict.fromkeys(entry["attention"] for entry in stated)
    return [
        entry
        for name in [*first, *(name for name in names if name not in first)]
        for entry in [each for each in stated if each["attention"] == name] or [{"attention": name}]
    ]


def owns_projections(entry: Entry) -> bool:
    """Whether an entry's variant is a token mixer, from tokens to tokens, and takes no queries, keys and values.

    Raises:
        ConfigError: it is neither a token mixer nor an attention.
    """
    found = target(_file(entry["attention"]))
    if isinstance(found, type) and issubclass(found, Attention | TokenMixer):
        return issubclass(found, TokenMixer)
    raise ConfigError(
        f"attention: {entry['attention']} is made of other variants and is not measured by itself; name one of them, "
        "or measure it in a model, as `training` does."
    )


def variant_settings(entry: Entry) -> dict[str, Any]:
    """The settings of an entry's variant: the attention, its parameters and the position scheme."""
    return {key: value for key, value in entry.items() if not any(key in form for form in FORMS.values())}


def completed(entry: Entry) -> dict[str, Any]:
    """Complete an entry with the parameters of its attention's file, or of its reference."""
    theirs = peer_named(entry["against"]).ours if "against" in entry else {}
    return {"attention": entry["attention"], **_defaults(entry["attention"]), **theirs, **entry}


def label(entry: Entry) -> str:
    """A short name of a variant and its position scheme: `full+alibi`."""
    return "+".join(str(entry[key]) for key in _CHOICES if key in entry)


def labelled(config: DictConfig, key: str) -> list[tuple[str, dict[str, Any]]]:
    """The entries of a list, each after a label with the parameters in which its variant's differ: `local window=4`."""
    found, names = entries(config, key), []
    for entry in found:
        alike = [other for other in found if label(other) == label(entry)]
        on_progress = [
            f"{key}={value}"
            for key, value in entry.items()
            if key not in (*_CHOICES, "length", *FORMS["pairs"]) and any(e.get(key) != value for e in alike)
        ]
        names.append(" ".join([label(entry), *on_progress]))
    return list(zip(names, found, strict=True))


def check_entries(key: str, found: Sequence[dict[str, Any]]) -> None:
    """Check all entries of a list.

    Raises:
        ConfigError: naming the list, the entry's key and value, and valid values.
    """
    for number, entry in enumerate(found):
        _check_form(key, entry)
        _check_variant(key, entry)
        if key == "pairs":
            check_same_function(variant_settings(entry), _defaults(entry["attention"]), peer_named(entry["against"]))
            _check_takes_queries(entry)
        if entry in found[:number]:
            raise ConfigError(f"{key} has {entry} twice; leave one out.")


def _check_takes_queries(entry: Entry) -> None:
    if owns_projections(entry) and not peer_named(entry["against"]).projects:
        raise ConfigError(
            f"pairs has attention: {entry['attention']}, which owns its projections, against {entry['against']}, which "
            "takes queries, keys and values; `attention` measures it against a whole layer of full attention."
        )


def _check_form(key: str, entry: Entry) -> None:
    needed = ["attention", *(name for name in FORMS[key] if name not in _OPTIONAL)]
    for name in needed:
        if name not in entry:
            raise ConfigError(f"{key} has {entry}, which lacks {name}; an entry says {', '.join(needed)}.")
    for name, kind in FORMS[key].items():
        if name in entry:
            kind.check(f"{name} in {key}", entry[name])


def _check_variant(key: str, entry: Entry) -> None:
    options = groups()
    for group in _CHOICES:
        if group in entry and entry[group] not in options[group]:
            raise ConfigError(
                f"{key} has {group}: {entry[group]}, which is no option; {nearest(str(entry[group]), options[group])}"
            )
    parameters = {name: value for name, value in entry.items() if name not in (*_CHOICES, *FORMS[key])}
    known = _defaults(entry["attention"])
    for name in parameters:
        if name not in known:
            valid = {*known, *_CHOICES, *FORMS[key]}
            raise ConfigError(
                f"{key} has {name}: {entry[name]}, which attention={entry['attention']} does not take; "
                f"{nearest(str(name), valid)}"
            )
    validate(OmegaConf.create({"attention": OmegaConf.merge(_file(entry["attention"]), parameters)}))


def _defaults(attention: str) -> dict[str, Any]:
    return {str(key): value for key, value in _file(attention).items() if not str(key).startswith("_")}


def _file(attention: str) -> DictConfig:
    return load_option("attention", attention)
