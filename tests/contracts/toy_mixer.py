"""The smallest token mixer with a parameter, a causal form alone, and a decoding state."""

from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from jaxtyping import Float, Int
from torch import Tensor, nn

from xformer.attention.base import AttentionContext
from xformer.attention.mixer import TokenMixer
from xformer.core.capability import Capability
from xformer.core.linear import Linear
from xformer.core.mask import Mask
from xformer.core.precision import at_least_float32, without_autocast
from xformer.core.state import State
from xformer.position.base import Position


class ToyState(State):
    """The running sum of each feature, (b d_model)."""

    total: Tensor | None = None

    def reorder(self, indices: Int[Tensor, " batch"]) -> None:
        self.total = None if self.total is None else self.total.index_select(0, indices)

    @property
    def bytes(self) -> int:
        return 0 if self.total is None else self.total.numel() * self.total.element_size()


class ToyMixer(TokenMixer):
    """y_i = W sigmoid(V x_i) s_i with s_i = decay s_{i-1} + U x_i, feature by feature, token by token."""

    provides: ClassVar[Capability] = (
        Capability.CAUSAL | Capability.PADDING | Capability.INCREMENTAL | Capability.VARIABLE_LENGTH
    )
    reasons: ClassVar[dict[Capability, str]] = {
        Capability.BIDIRECTIONAL: "its state goes from left to right.",
        Capability.CROSS: "it reads the sequence that it writes.",
        Capability.BIAS: "it has no score of a query and a key.",
        Capability.CONTENT_BIAS: "it has no score of a query and a key.",
        Capability.ROTARY: "it has no score of a query and a key.",
    }

    def __init__(self, context: AttentionContext, *, decay: Annotated[float, Interval(gt=0, lt=1)]) -> None:
        super().__init__(context)
        self.initial = decay
        self.gates = Linear(context.d_model, 2 * context.d_model)
        self.decay = nn.Parameter(torch.empty(context.d_model))
        self.dropout = nn.Dropout(context.dropout)
        self.output = Linear(context.d_model, context.d_model, gain=context.gain)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.decay, self.initial)

    def init_state(self, max_length: int) -> ToyState:
        return ToyState()

    def forward(
        self,
        x: Float[Tensor, "b n d_model"],
        *,
        mask: Mask,
        position: Position | None,
        layer: int,
        state: State | None,
    ) -> Float[Tensor, "b n d_model"]:
        state = ToyState() if state is None else state
        assert isinstance(state, ToyState)
        valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        valid = (valid if mask.key_padding is None else mask.key_padding)[..., None]
        gate, new = self.gates(x.masked_fill(~valid, 0.0)).chunk(2, dim=-1)
        mixed: Tensor = self.output(self.dropout(torch.sigmoid(gate) * self._sums(new, valid, state)))
        return mixed

    def _sums(self, new: Tensor, valid: Tensor, state: ToyState) -> Tensor:
        decay, totals = at_least_float32(self.decay), []
        with without_autocast(new.device):
            total = at_least_float32(new).new_zeros(len(new), new.shape[2]) if state.total is None else state.total
            for token, counts in zip(at_least_float32(new).unbind(1), valid.unbind(1), strict=True):
                total = torch.where(counts, decay * total + token, total)
                totals.append(total)
        state.total, state.length = total, state.length + new.shape[1]
        return torch.stack([decay * total, *totals], dim=1)[:, 1:].to(new.dtype)
