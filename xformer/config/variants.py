"""Attentions and token mixers as plain modules, by class name, with the defaults of `conf/attention/`.

    attend = xformer.Performer(d_model=64, num_heads=4)
    y = attend(x)  # (batch, length, 64) -> (batch, length, 64)

The files of `conf/attention/` name the classes and hold the defaults, so a new variant is here once it has its file.
"""

import difflib
import inspect
import sys
from typing import Annotated, Any, cast

from annotated_types import Ge, Interval
from omegaconf import DictConfig, OmegaConf

from xformer.attention.base import AttentionContext, Capable
from xformer.attention.mixer import TokenMixer
from xformer.config.groups import load_option
from xformer.config.plugins import conf_folders
from xformer.config.validate import instantiate_node, target, validate_option
from xformer.config.values import check_value
from xformer.core.capability import Capability
from xformer.errors import ConfigError
from xformer.layers.initialise import initialise
from xformer.layers.multi_head import token_mixer

_RANGES: dict[str, Any] = {
    "d_model": Annotated[int, Ge(1)],
    "num_heads": Annotated[int, Ge(1)],
    "max_length": Annotated[int, Ge(1)],
    "causal": bool | None,
    "dropout": Annotated[float, Interval(ge=0, lt=1)],
    "key_value_heads": Annotated[int, Ge(1)] | None,
    "seed": Annotated[int, Interval(ge=0, lt=2**32)],
}


class Variant:
    """A variant of attention: calling it builds a multi-head attention module that uses it.

    Args:
        name: of its class.

    Attributes:
        option: its file in `conf/attention/`.

    Raises:
        AttributeError: no variant has that name.
    """

    def __init__(self, name: str) -> None:
        found = variants()
        if name not in found:
            near = difflib.get_close_matches(name, found, n=1)
            way_out = f"did you mean {near[0]}?" if near else f"attention variants: {', '.join(found)}."
            raise AttributeError(f"module 'xformer' has no attribute {name!r}; {way_out}")
        self.option = found[name]
        self.__name__ = name
        variant = target(_node(self.option))
        self.__doc__ = "\n\n".join(
            filter(None, map(inspect.getdoc, (sys.modules[variant.__module__], type(self).__call__)))
        )
        self.__signature__ = self._with_defaults()

    def __call__(
        self,
        d_model: int,
        num_heads: int,
        *,
        max_length: int = 1024,
        causal: bool | None = None,
        dropout: float = 0.0,
        key_value_heads: int | None = None,
        seed: int = 0,
        **hyper_parameters: Any,
    ) -> TokenMixer:
        """Build multi-head attention or another token mixer, from (batch, length, d_model) to the same shape.

        Args:
            d_model: features of a token.
            num_heads: how many heads share them; it divides `d_model`.
            max_length: the longest sequence, in tokens; a variant that declares VARIABLE_LENGTH takes longer ones.
            causal: whether every token reads itself and those before it alone; None for where there is no other form.
            dropout: rate on the mixed values.
            key_value_heads: heads of keys and values; None for as many as queries have. Only attention has them.
            seed: of the initial values; with one seed, what two variants share begins alike.
            hyper_parameters: the variant's own; the others have the values of its file in `conf/attention/`.

        Raises:
            ConfigError: a value is not valid, or the variant has no such hyper-parameter.
            IncompatibleError: `causal` is asked of a variant that cannot be, or that it is not of one that must be.
        """
        values = {name: value for name, value in locals().items() if name in _RANGES}
        for name, value in values.items():
            check_value(name, value, _RANGES[name])
        if d_model % num_heads:
            raise ConfigError(f"d_model={d_model} is not divisible by num_heads={num_heads}.")
        node = cast(DictConfig, OmegaConf.merge(_node(self.option), hyper_parameters))
        validate_option(node, "attention")
        if causal is None:
            causal = Capability.BIDIRECTIONAL not in cast(type[Capable], target(node)).provides
        context = AttentionContext(
            num_heads, d_model // num_heads, max_length, max_length, causal, d_model=d_model, dropout=dropout
        )
        made = instantiate_node(node)(context)
        if key_value_heads is not None and isinstance(made, TokenMixer):
            raise ConfigError(f"key_value_heads={key_value_heads}: {self.__name__} has no keys and values to share.")
        attend = token_mixer(made, key_value_heads=key_value_heads)
        initialise(attend, seed)
        return attend

    def __repr__(self) -> str:
        return f"xformer.{self.__name__}{self.__signature__}"

    def _with_defaults(self) -> inspect.Signature:
        """The call signature: the variant's hyper-parameters, with the defaults of its option file."""
        signature = inspect.signature(self.__call__)
        *shared, _ = signature.parameters.values()
        saved = [
            inspect.Parameter(str(name), inspect.Parameter.KEYWORD_ONLY, default=value)
            for name, value in _node(self.option).items()
            if not str(name).startswith("_")
        ]
        return signature.replace(parameters=[*shared, *saved])


def variants() -> dict[str, str]:
    """The class name of every variant and its option; hybrids are left out, as they are not a class.

    Where several options have classes of one name, the first stands: xformer's own before a plugin's.
    """
    found: dict[str, str] = {}
    for conf in conf_folders():
        for file in sorted((conf / "attention").glob("*.yaml")):
            name = str(_node(file.stem)._target_).rpartition(".")[2]
            if name[0].isupper():
                found.setdefault(name, file.stem)
    return found


def _node(option: str) -> DictConfig:
    return load_option("attention", option)
