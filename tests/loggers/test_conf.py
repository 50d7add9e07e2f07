import inspect
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_method
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf"
NODES = [
    pytest.param(node, id=f"{path.parent.name}/{path.stem}/{name}")
    for group in ("callbacks", "logger")
    for path in sorted((CONF / group).glob("*.yaml"))
    for name, node in OmegaConf.to_container(OmegaConf.load(path)).items()
    if name != "defaults"
]


@pytest.mark.parametrize("node", NODES)
def test_the_keys_are_the_constructors_keyword_parameters(node: dict[str, Any]) -> None:
    target = get_method(node["_target_"]) if node.get("_partial_") else _resolve(node["_target_"])
    parameters = inspect.signature(target).parameters.values()
    keys = {key for key in node if not key.startswith("_")}
    if node["_target_"].startswith("xformer."):
        assert keys == {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    else:
        assert keys <= {parameter.name for parameter in parameters}


def _resolve(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(__import__(module, fromlist=[name]), name)
