from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from tests.data.drawn import write
from xformer.config.validate import instantiate_node
from xformer.data.base import DataModule
from xformer.data.configs import DataContext

CONF = Path(__file__).parents[2] / "conf"


def committed(path: Path) -> DictConfig:
    """A committed file of one node, over those that it extends."""
    node = OmegaConf.load(path)
    extended = [name for name in node.pop("defaults", []) if isinstance(name, str)]
    return OmegaConf.merge(*(committed(path.with_stem(name)) for name in extended), node)


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., DataModule]:
    """Build a data module from its committed yaml, with overrides, as the program does.

    An option in a block may be named alone, `batch_size` for `loader.batch_size`, where no other has its name.
    """

    def build(name: str, *, seed: int = 0, tokenizer: str = "character", **overrides: Any) -> DataModule:
        chosen = OmegaConf.load(CONF / "tokenizer" / f"{tokenizer}.yaml")
        if "vocabulary_size" in chosen:
            chosen.vocabulary_size = 300
        data = OmegaConf.create({"tokenizer": chosen, "data": committed(CONF / "data" / f"{name}.yaml")}).data
        for key, value in overrides.items():
            blocks = [block for block, node in data.items() if isinstance(node, DictConfig) and key in node]
            OmegaConf.update(data, key if key in data else f"{blocks[0]}.{key}", value, force_add=True)
        return instantiate_node(data)(DataContext(seed, tmp_path / "cache"))

    return build


@pytest.fixture
def ready(build: Callable[..., DataModule]) -> Callable[..., DataModule]:
    def ready(name: str, **options: Any) -> DataModule:
        module = build(name, **options)
        module.prepare_data()
        module.setup("fit")
        return module

    return ready


@pytest.fixture
def no_network(monkeypatch):
    """Fail at once as a machine without a network does, and count the attempts."""
    import huggingface_hub

    asked = []

    def fail(self, name, **options):
        asked.append((name, options))
        raise OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
    return asked


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures of cats and ten of dogs."""
    for first, name in enumerate(("cat", "dog")):
        write(tmp_path / "pictures" / name, 10, 10 * first)
    return tmp_path / "pictures"
