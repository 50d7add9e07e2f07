"""The audited class, and its construction from `key=value` arguments; missing required ones are guessed.

Only the module that holds the class is imported, and only the class and its configuration's class are called.
"""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from torch import nn

from xformer.attention.base import Capable
from xformer.config.groups import load_option
from xformer.config.validate import target
from xformer.config.variants import variants
from xformer.errors import ConfigError

WIDTH, HEADS = 32, 4
WIDTHS = ("d_model", "dim", "input_size", "hidden_size", "embed_dim", "n_embd", "embedding_dim", "width", "channels")
"""Names of the number of features of a token in constructors, the most likely first."""
GUESSES: Mapping[str, Any] = {
    **dict.fromkeys(WIDTHS, WIDTH),
    **dict.fromkeys(("heads", "num_heads", "nhead", "n_head", "n_heads", "num_attention_heads"), HEADS),
    **dict.fromkeys(("depth", "num_layers", "n_layer", "n_layers", "num_hidden_layers"), 1),
    **dict.fromkeys(("seq_len", "max_seq_len", "max_length", "max_len"), 512),
    **dict.fromkeys(("dim_head", "head_dim", "d_head"), WIDTH // HEADS),
    **dict.fromkeys(("dim_feedforward", "d_ff", "ff_dim"), 2 * WIDTH),
    "window_size": 16,
    **dict.fromkeys(("layer_idx", "layer_id"), 0),
}
"""Values of required arguments."""
NEEDED = ("depth", "layer_idx", "layer_id")
"""Optional arguments that are guessed too, because modules fail later without them."""
SMALL: Mapping[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim"), WIDTH),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_key_value_heads", "n_heads"), HEADS),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 1),
    **dict.fromkeys(("intermediate_size", "d_ff"), 2 * WIDTH),
    "head_dim": WIDTH // HEADS,
    "vocab_size": 64,
    "chunk_size": 16,
}
"""Values for fields of a configuration object, whose defaults describe a large model."""


@dataclass(frozen=True)
class Target:
    """A class, or a function that makes a module, and the arguments to call it with.

    Attributes:
        path: its name as the user typed it.
        cls: the class or function.
        arguments: the arguments of its constructor.
        config_class: the class of the argument `config`, if it has one.
        config_arguments: the arguments of that class.
        guessed: names of required arguments that were not passed and are guessed.
    """

    path: str
    cls: Callable[..., nn.Module]
    arguments: dict[str, Any]
    config_class: type | None = None
    config_arguments: dict[str, Any] = field(default_factory=dict)
    guessed: tuple[str, ...] = ()

    @property
    def width(self) -> int | None:
        """Features of a token, from the arguments or their defaults."""
        defaults = {name: parameter.default for name, parameter in takes(self.cls).items()}
        for passed in (self.arguments, self.config_arguments, defaults):
            for name in WIDTHS:
                if isinstance(passed.get(name), int):
                    return int(passed[name])
        return None

    @property
    def package(self) -> str:
        """The name of its top-level package, which may differ from the name in a package index."""
        return str(getattr(self.cls, "__module__", self.path)).partition(".")[0]

    def config(self) -> Any:
        """A configuration object, or None."""
        return None if self.config_class is None else self.config_class(**self.config_arguments)

    def source(self) -> list[str]:
        """Lines of Python that build `module`, and `config` if there is one, after torch is imported."""
        where, _, name = self.path.replace(":", ".").rpartition(".")
        lines = [f"from {where} import {name}"]
        passed = [f"{key}={value!r}" for key, value in self.arguments.items()]
        if self.config_class is not None:
            settings = ", ".join(f"{key}={value!r}" for key, value in self.config_arguments.items())
            lines.insert(0, f"from {self.config_class.__module__} import {self.config_class.__qualname__}")
            lines.append(f"config = {self.config_class.__qualname__}({settings})")
            passed.insert(0, "config=config")
        return [*lines, f"module = {name}({', '.join(passed)})"]

    def build(self) -> tuple[nn.Module, Any]:
        """Build a module and its configuration object.

        Raises:
            ConfigError: the constructor does not accept the arguments.
        """
        try:
            config = self.config()
            module = self.cls(**self.arguments) if config is None else self.cls(config=config, **self.arguments)
        except (Exception, SystemExit) as error:
            shown = {**self.config_arguments, **self.arguments}
            arguments = ", ".join(f"{key}={value!r}" for key, value in shown.items()) or "no arguments"
            raise ConfigError(
                f"{self.path} cannot be built with {arguments} ({one_line(error)}); pass key=value arguments of "
                f"its constructor: {signature_of(self.cls)}."
            ) from error
        if not isinstance(module, nn.Module):
            raise ConfigError(f"{self.path} returns a {type(module).__name__}, but an audit needs a torch.nn.Module.")
        return module, config


def find_class(path: str) -> Callable[..., nn.Module]:
    """The class that `PACKAGE.Class` names, or a function that makes a module.

    Raises:
        ConfigError: it does not exist, its package cannot be imported, or it is not a class or function of modules.
    """
    found = find_object(path, path)
    if (
        not callable(found)
        or isinstance(found, nn.Module)
        or (isinstance(found, type) and not issubclass(found, nn.Module))
    ):
        kind = f"the class {found.__name__}" if isinstance(found, type) else f"a {type(found).__name__}"
        raise ConfigError(f"{path} is {kind}; name a class of torch.nn.Module, as in torch.nn.GRU.")
    maker: Callable[..., nn.Module] = found
    return maker


def takes(cls: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """The parameters of a constructor; if it has `**kwargs`, those of the base classes are included."""
    found: dict[str, inspect.Parameter] = {}
    for depth, maker in enumerate(_makers(cls)):
        parameters = list(inspect.signature(maker).parameters.values())[int(isinstance(cls, type)) :]
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        for p in named:  # what a base class needs, its child may pass by itself
            fits = depth == 0 or p.default is not p.empty or p.name in GUESSES
            found.setdefault(p.name, p if fits else p.replace(default=None))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def find_object(path: str, key: str) -> Any:
    """Import the object that `package.name` or `package:name` names.

    Raises:
        ConfigError: it does not exist or cannot be imported; the message names `key`, the option.
    """
    parts = [part for part in path.replace(":", ".").split(".") if part]
    if len(parts) < 2:
        raise ConfigError(f"{key} is not of the form PACKAGE.NAME, such as torch.nn.MultiheadAttention.")
    module = None
    for end in range(1, len(parts)):
        name = ".".join(parts[:end])
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            if error.name and not (name == error.name or name.startswith(f"{error.name}.")):
                raise ConfigError(f"{name} cannot be imported ({one_line(error)}); install what it needs.") from error
            break
        except (Exception, SystemExit) as error:
            raise ConfigError(f"{name} cannot be imported ({one_line(error)}).") from error
    if module is None:
        raise ConfigError(f"{key}: there is no package {parts[0]}; install it or correct the name.")
    found: Any = module
    for name in parts[len(module.__name__.split(".")) :]:
        if not hasattr(found, name):
            raise ConfigError(f"{key} does not exist: {_describe(found)} has no {name}; {_near(name, found)}.")
        found = getattr(found, name)
    return found


def takes_any(cls: Callable[..., object]) -> bool:
    """Whether the constructor and its bases all accept `**kwargs`."""
    return all(
        any(p.kind is p.VAR_KEYWORD for p in inspect.signature(maker).parameters.values()) for maker in _makers(cls)
    )


def _makers(cls: Callable[..., object]) -> list[Any]:
    """The callables that make an object: a function, or a class's constructor and those of its bases."""
    if not isinstance(cls, type):
        return [cls]
    bases = [base for base in cls.__mro__ if "__init__" in vars(base) and base not in (nn.Module, object)]
    return [vars(base)["__init__"] for base in bases]


def make_target(path: str, passed: Sequence[str]) -> Target:
    """The class that `path` names, with arguments `key=value`, whose values are read as YAML.

    Raises:
        ConfigError: the class does not exist, an argument is not `key=value` or unknown, or a required argument is
            missing and cannot be guessed.
    """
    path = _buildable(path)
    cls, parsed = find_class(path), parse(passed)
    known = takes(cls)
    config_class = _config_class(path, cls) if "config" in known and "config" not in parsed else None
    loose = config_class is None and takes_any(cls)
    arguments = {key: value for key, value in parsed.items() if key in known or loose}
    rest = {key: value for key, value in parsed.items() if key not in arguments}
    if rest and config_class is None:
        raise ConfigError(f"{path} does not take {', '.join(rest)}; it takes {signature_of(cls)}.")
    guessed = _guesses(
        path,
        [
            name
            for name, parameter in known.items()
            if name not in parsed and (parameter.default is parameter.empty or name in NEEDED) and name != "config"
        ],
    )
    small = _small(path, config_class, rest)
    return Target(path, cls, {**guessed, **arguments}, config_class, {**small, **rest}, (*guessed, *small))


def _buildable(path: str) -> str:
    """The path of a variant's plain module, which is built from plain numbers; other paths are returned unchanged."""
    found = find_class(path)
    if not (isinstance(found, type) and issubclass(found, Capable)):
        return path
    named = variants().get(found.__name__)
    if named is None or target(load_option("attention", named)) is not found:
        raise ConfigError(
            f"{path} is built from the context of a layer, which its option supplies: add conf/attention/NAME.yaml to "
            "its package, and name that by plugins=[PACKAGE]."
        )
    return f"xformer.{found.__name__}"


def _guesses(path: str, names: Sequence[str]) -> dict[str, Any]:
    """Values of these required arguments."""
    if missing := [name for name in names if name not in GUESSES]:
        raise ConfigError(
            f"{path} needs {', '.join(missing)}, which cannot be guessed; pass "
            f"{' '.join(f'{name}=VALUE' for name in missing)}."
        )
    return {name: GUESSES[name] for name in names}


def _small(path: str, config_class: type | None, passed: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a small model, for the fields that a configuration has."""
    if config_class is None:
        return {}
    required = [n for n, p in takes(config_class).items() if p.default is p.empty and n not in passed]
    needed = _guesses(path, required)
    try:
        defaults = config_class(**needed, **passed)
    except (Exception, SystemExit):
        defaults = config_class(**needed)
    small = {key: value for key, value in SMALL.items() if hasattr(defaults, key)}
    if hasattr(defaults, "expand") and hasattr(defaults, "num_heads"):  # of a state-space model's inner width
        small["num_heads"] = int(defaults.expand * WIDTH // small.get("head_dim", WIDTH))
    return {key: value for key, value in {**needed, **small}.items() if key not in passed}


def parse(passed: Sequence[str]) -> dict[str, Any]:
    """`key=value` as a dictionary, with values read as YAML; `torch.NAME` is a dtype.

    Raises:
        ConfigError: an argument has no `=`, or its value is not YAML.
    """
    found = {}
    for word in passed:
        key, equals, value = word.partition("=")
        if not (equals and key):
            raise ConfigError(f"{word} is not of the form key=value; pass arguments of the class as in dim=64.")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"{word}: {value} is not a YAML value; quote it, as in {key}='\"text\"'.") from error
        named = str(found[key]).removeprefix("torch.")
        if f"torch.{named}" == found[key] and isinstance(dtype := getattr(torch, named, None), torch.dtype):
            found[key] = dtype
    return found


def signature_of(cls: Callable[..., object]) -> str:
    """Names of a constructor's arguments; required ones come first and are marked."""
    words = [f"{p.name}=..." if p.default is p.empty else p.name for p in takes(cls).values()]
    shown = sorted(words, key=lambda word: "=" not in word)
    return ", ".join(shown[:24]) + (f" and {len(shown) - 24} more" if len(shown) > 24 else "") if shown else "nothing"


def one_line(error: BaseException) -> str:
    """An exception of the audited code in one short line."""
    words = " ".join(str(error).split()) or type(error).__name__
    return f"{type(error).__name__}: {words if len(words) <= 160 else words[:157] + '...'}"


def _config_class(path: str, cls: Callable[..., object]) -> type:
    """The class of an argument `config`, from its annotation, an attribute, or the only candidate in its module."""
    beside = vars(sys.modules[cls.__module__])
    annotation = takes(cls)["config"].annotation
    annotation = beside.get(annotation) if isinstance(annotation, str) else annotation
    for found in (annotation, getattr(cls, "config_class", None)):
        if isinstance(found, type) and found is not inspect.Parameter.empty:
            return found
    fitting = [value for name, value in beside.items() if name.endswith("Config") and isinstance(value, type)]
    if len(fitting) == 1:
        return fitting[0]
    raise ConfigError(
        f"{path} needs a config of an unknown class; write a function without arguments that builds the module, and "
        "audit that function."
    )


def _describe(found: object) -> str:
    return str(getattr(found, "__name__", type(found).__name__))


def _near(name: str, where: object) -> str:
    from difflib import get_close_matches

    names = [other for other in dir(where) if not other.startswith("_")]
    near = get_close_matches(name, names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?".rstrip("?") if near else "list its names with dir()"
