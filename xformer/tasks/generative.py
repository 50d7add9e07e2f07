"""What a task whose model can write has in addition."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Int
from torch import Tensor

from xformer.data.spec import DataSpec
from xformer.generation.prefixes import Prefixes


class Generative(ABC):
    """A task whose model writes; the runs of such tasks, and no others, are what `xformer generate` takes."""

    continues: ClassVar[bool]
    """Whether what is written goes on from the prompt, which is then shown with it, rather than answers it."""

    @property
    @abstractmethod
    def longest_prompt(self) -> int | None:
        """In tokens; None where there is no limit."""

    @abstractmethod
    def prefixes(self, prompts: Sequence[Int[Tensor, "..."]], spec: DataSpec, max_new: int) -> Prefixes:
        """What to write after, or for, each prompt; the task is in evaluation mode.

        Args:
            prompts: token ids on the model's device.
            spec: of the data that the task was trained on.
            max_new: how many tokens to write at most.

        Raises:
            DataError: a prompt is longer than the model reads.
        """
