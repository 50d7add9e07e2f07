"""The base class of the loggers of a run."""

from lightning.pytorch.loggers import Logger

from xformer.runs.summary import Summary


class RunLogger(Logger):
    """A logger of one run: it starts when it is built, and the run ends it.

    Both methods are called on all processes, and do nothing unless a logger has something to say.
    """

    def begin(self, summary: Summary) -> None:
        """Log what is known about the run before it trains."""

    def end(self, exit_code: int, summary: Summary | None = None) -> None:
        """Finish logging, however the run ended; calling it twice is harmless.

        Args:
            exit_code: 0 for a finished run; otherwise a failure.
            summary: the content of `summary.json`.
        """
