"""Valid ranges of Lightning's parameters where Lightning itself accepts meaningless values.

Values that Lightning refuses are not listed here; `as_config_errors` in `xformer.training.trainer` handles these.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from annotated_types import Ge, Interval
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping

_SOME = Annotated[int, Ge(1)] | Annotated[float, Interval(gt=0, le=1)]
"""A number of batches, or a fraction of all batches."""

RANGES: dict[Callable[..., Any], dict[str, Any]] = {
    Trainer: {
        "max_steps": Annotated[int, Ge(-1)],
        "max_epochs": Annotated[int, Ge(-1)] | None,
        "min_steps": Annotated[int, Ge(0)] | None,
        "min_epochs": Annotated[int, Ge(0)] | None,
        "devices": Annotated[int, Interval(ge=-1, le=1024)] | list[Annotated[int, Ge(0)]] | str,
        "num_nodes": Annotated[int, Interval(ge=1, le=65536)],
        "accumulate_grad_batches": Annotated[int, Ge(1)],
        "gradient_clip_val": Annotated[float, Ge(0)] | None,
        "gradient_clip_algorithm": Literal["norm", "value"] | None,
        "val_check_interval": _SOME | str | dict[str, int] | None,
        "check_val_every_n_epoch": Annotated[int, Ge(1)] | None,
        "log_every_n_steps": Annotated[int, Ge(1)],
        "num_sanity_val_steps": Annotated[int, Ge(-1)],
        "limit_train_batches": _SOME | None,
        "limit_val_batches": _SOME | None,
        "limit_test_batches": _SOME | None,
    },
    EarlyStopping: {"patience": Annotated[int, Ge(0)]},
}
