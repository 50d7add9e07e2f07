"""The base class of tasks whose models generate sequences."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Int
from torch import Tensor

from xformer.data.spec import DataSpec
from xformer.generation.prefixes import Prefixes


class Generative(ABC):
    """A task whose model generates sequences; `xformer generate` accepts only runs of such tasks."""

    continues: ClassVar[bool]
    """Whether the generated text continues the prompt, which is then shown with it."""

    @property
    @abstractmethod
    def longest_prompt(self) -> int | None:
        """The longest prompt in tokens; None if there is no limit."""

    @abstractmethod
    def prefixes(self, prompts: Sequence[Int[Tensor, "..."]], spec: DataSpec, max_new: int) -> Prefixes:
        """The prefixes from which to decode, one for each prompt; the task is in evaluation mode.

        Args:
            prompts: token ids on the model's device.
            spec: the specification of the data that the task was trained on.
            max_new: the maximum number of new tokens.

        Raises:
            DataError: a prompt is longer than the model reads.
        """
