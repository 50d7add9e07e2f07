"""What an attention can do: declared per class, denied by default, proved by the contract tests."""

import enum


class Capability(enum.Flag):
    """One flag per situation that an attention must handle exactly, or refuse."""

    NONE = 0
    CAUSAL = enum.auto()
    """No output depends on a later token."""
    CROSS = enum.auto()
    """Queries and keys come from different sequences."""
    PADDING = enum.auto()
    """The content of padded keys changes nothing."""
    BIAS = enum.auto()
    """A relative bias, a number per head and distance between key and query, is added to the scores."""
    CONTENT_BIAS = enum.auto()
    """A relative bias that also depends on the query, or that adds to the values."""
    ROTARY = enum.auto()
    """Rotating queries and keys makes the scores a function of distance."""
    INCREMENTAL = enum.auto()
    """`step`, repeated token by token, equals `forward`."""
    VARIABLE_LENGTH = enum.auto()
    """Sequences longer than the longest one that the model was built for."""
    BIDIRECTIONAL = enum.auto()
    """Tokens of one sequence read those after them as well as those before."""
