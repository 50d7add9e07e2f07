"""Config-driven Transformer experiments: change one thing, hold the rest equal, believe the result.

For a notebook, all of it loaded when it is first used:

    xformer.build_model(["attention=linformer"])    the model that `python train.py attention=linformer` begins with
    xformer.open_run("outputs/first")               a finished run: its model, configuration, summary, logits
    xformer.compare(["outputs/a", "outputs/b"])     what `xformer compare` says, as a DataFrame
    xformer.Performer(d_model=64, num_heads=4)      an attention variant as a plain module; so is every other
    xformer.MultiHeadAttention, xformer.Mask        what that module is, and which token may read which
    xformer.errors                                  what goes wrong in a way that one can mend
"""

from importlib import import_module
from typing import TYPE_CHECKING

from xformer import errors

if TYPE_CHECKING:
    from xformer.config.variants import Variant
    from xformer.core.mask import Mask
    from xformer.layers.multi_head import MultiHeadAttention
    from xformer.runs.open_run import open_run
    from xformer.studies.dataframe import comparison_frame as compare
    from xformer.training.model import build_model

__version__ = "0.1.0"
__all__ = ["Mask", "MultiHeadAttention", "build_model", "compare", "errors", "open_run"]

_DEFINED_IN = {
    "Mask": "xformer.core.mask.Mask",
    "MultiHeadAttention": "xformer.layers.multi_head.MultiHeadAttention",
    "build_model": "xformer.training.model.build_model",
    "compare": "xformer.studies.dataframe.comparison_frame",
    "open_run": "xformer.runs.open_run.open_run",
}


def __getattr__(name: str) -> "Variant":
    """A name of the interface, or the attention variant whose class has that name."""
    if name in _DEFINED_IN:
        module, _, member = _DEFINED_IN[name].rpartition(".")
        found: Variant = getattr(import_module(module), member)
    elif name[:1].isupper():  # so it is not a module, which Python would look for first
        found = import_module("xformer.config.variants").Variant(name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *import_module("xformer.config.variants").variants()})
