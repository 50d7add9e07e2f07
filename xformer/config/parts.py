"""The type of each group's option: an object, or a factory that is called once data and model sizes are known."""

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger

from xformer.architecture.base import ArchitectureFactory
from xformer.architecture.size import Size
from xformer.attention.base import AttentionFactory
from xformer.config.match import Match
from xformer.data.base import DataModule
from xformer.data.configs import DataContext
from xformer.optimization.optimizer import OptimizerFactory
from xformer.optimization.schedule import Schedule
from xformer.position.base import PositionFactory
from xformer.tasks.base import Task
from xformer.tasks.losses import Loss
from xformer.tokenizers.base import Tokenizer

Factory: Any = typing.get_origin(Callable[..., Any])
PARTS: Mapping[str, Any] = {
    "architecture": ArchitectureFactory,
    "attention": AttentionFactory,
    "callbacks": dict[str, Callback],
    "data": Callable[[DataContext], DataModule],
    "logger": dict[str, Callable[..., Logger]],
    "loss": Loss,
    "match": Match,
    "optimizer": OptimizerFactory,
    "position": PositionFactory,
    "schedule": Schedule,
    "size": Size,
    "task": Callable[..., Task],
    "tokenizer": Tokenizer,
    "trainer": Callable[..., Trainer],
}
"""The type of each group's node; there may be several callbacks and loggers."""


def is_part(hint: Any) -> bool:
    """Whether an annotation expects an object made from a `_target_`, and not a plain value."""
    return is_factory(hint) or (inspect.isclass(hint) and hint.__module__ != "builtins" and not typing.get_args(hint))


def is_factory(hint: Any) -> bool:
    """Whether an annotation expects a factory, which `_partial_: true` makes."""
    return typing.get_origin(hint) is Factory


def produces(found: Callable[..., Any], hint: Any) -> bool:
    """Whether a target returns the type that an annotation expects."""
    wanted = typing.get_args(hint)[-1] if is_factory(hint) else hint
    made = found if inspect.isclass(found) else typing.get_type_hints(found).get("return")
    return not (inspect.isclass(wanted) and inspect.isclass(made)) or issubclass(made, wanted)
