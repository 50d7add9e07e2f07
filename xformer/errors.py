"""The errors a user can cause: each message is one sentence that names the key, the value and the way out."""


class XformerError(Exception):
    """Something the user can mend; shown without a traceback."""

    told = False
    """Whether the screen has shown it."""


class ConfigError(XformerError):
    """A key, an option, a type or a value that is not valid."""


class IncompatibleError(XformerError):
    """Choices that are each valid and do not go together."""


class DataError(XformerError):
    """Data that is missing, empty, damaged or not what was declared."""


class RunError(XformerError):
    """A run that cannot start or must not go on."""
