"""What an attention can do: declared per class, denied by default, proved by the contract tests."""

import enum


class Capability(enum.Flag):
    """One flag per feature that an attention must either support exactly or refuse."""

    NONE = 0
    CAUSAL = enum.auto()
    """No output depends on a later token."""
    CROSS = enum.auto()
    """Queries and keys come from different sequences."""
    PADDING = enum.auto()
    """The content of padded keys does not affect any output."""
    BIAS = enum.auto()
    """Supports a relative bias: a number per head and distance between key and query, added to the scores."""
    CONTENT_BIAS = enum.auto()
    """Supports a relative bias that also depends on the query or adds to the values."""
    ROTARY = enum.auto()
    """Rotating queries and keys makes the scores a function of distance."""
    INCREMENTAL = enum.auto()
    """`step`, repeated token by token, equals `forward`."""
    VARIABLE_LENGTH = enum.auto()
    """Supports sequences longer than the maximum length that the model was built for."""
    BIDIRECTIONAL = enum.auto()
    """Tokens can attend to later tokens as well as earlier ones."""
