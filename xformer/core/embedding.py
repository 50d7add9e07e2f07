"""Token embeddings scaled to unit variance."""

from torch import Tensor, nn
from torch.nn.functional import embedding


class Embedding(nn.Embedding):
    """Vectors of N(0, 1/d) entries times sqrt(d), as in Vaswani et al. 2017, section 3.4.

    The product has unit variance. The table can be tied to an output layer, whose initial logits then have unit
    variance too.
    """

    def reset_parameters(self) -> None:
        """Reinitialise the table."""
        nn.init.normal_(self.weight, std=self.embedding_dim**-0.5)

    def forward(self, input: Tensor) -> Tensor:
        """table[input] * sqrt(d)."""
        scaled: Tensor = embedding(input, self.weight) * self.embedding_dim**0.5
        return scaled
