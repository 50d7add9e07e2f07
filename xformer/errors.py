"""Errors that a user can cause: each message names the key, the value and what would work."""

import signal


class XformerError(Exception):
    """Base class of errors that the user can fix; shown without a traceback."""

    reported = False
    """Whether the error was printed already."""


class ConfigError(XformerError):
    """A key, an option, a type or a value that is not valid."""


class IncompatibleError(XformerError):
    """Choices that are each valid and do not go together."""


class DataError(XformerError):
    """Data that is missing, empty, damaged or not what was declared."""


class StorageError(XformerError):
    """A disk that is full or not writable."""


class RunError(XformerError):
    """A run that cannot start or must not go on."""


class DivergedError(RunError):
    """A run whose loss or parameters became NaN or infinite."""


class Interrupted(SystemExit):
    """A signal stopped the run; where nothing catches it, the process ends with the exit code that shells expect.

    Not an `Exception`, so that code that continues after errors does not continue after this.

    Args:
        number: the signal.
        code: the exit code where it is not 128 + `number`.
    """

    def __init__(self, number: signal.Signals, code: int | None = None) -> None:
        super().__init__(128 + number if code is None else code)
        self.signal = number

    def __str__(self) -> str:
        return f"Stopped by {'Ctrl-C' if self.signal == signal.SIGINT else self.signal.name}."
