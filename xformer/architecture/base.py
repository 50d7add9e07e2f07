"""The base class of architectures: the interface for tasks and the compatibility check."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from xformer.architecture.size import Size
from xformer.architecture.slot import Slot
from xformer.architecture.tower import Tower

EmbeddingFactory = Callable[[int], nn.Module]
"""Builds the input layer, which maps the data's inputs to vectors of this width."""


class Architecture(nn.Module, ABC):
    """An architecture: a module from sequences to hidden states."""

    slots: ClassVar[dict[str, Slot]]
    """The slots of its attentions, by configuration key."""
    causal: ClassVar[bool]
    """Whether no hidden state depends on a later token of `inputs`."""
    transduces: ClassVar[bool] = False
    """Whether it generates one sequence from another."""

    size: Size
    max_length: int
    embedding: nn.Module

    @abstractmethod
    def forward(
        self, inputs: Tensor, padding_mask: Bool[Tensor, "batch length"] | None = None
    ) -> Float[Tensor, "batch length d_model"]:
        """The hidden states of a batch.

        Args:
            inputs: the inputs of the embedding, such as token ids (batch length).
            padding_mask: False at padding.
        """

    def pop_auxiliary_loss(self) -> Float[Tensor, ""] | None:
        """Return and clear the sum of the token mixers' auxiliary losses of the last training pass, if any."""
        losses: list[Tensor] = []
        for part in self.children():
            if isinstance(part, Tower) and part.auxiliary_loss is not None:
                losses.append(part.auxiliary_loss)
                part.auxiliary_loss = None
        return torch.stack(losses).sum() if losses else None

    @property
    def max_target(self) -> int:
        """The longest sequence that the model may generate; by default `max_length`."""
        return self.max_length

    @classmethod
    def positions(cls) -> set[str]:
        """The position schemes that the architecture takes, by the configuration's key."""
        return {slot.position for slot in cls.slots.values() if slot.position is not None}


ArchitectureFactory = Callable[[EmbeddingFactory, int], Architecture]
"""What `conf/architecture/*.yaml` instantiates to: (embedding, longest sequence) -> architecture."""
