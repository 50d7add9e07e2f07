"""What a run asks of each of its loggers."""

from lightning.pytorch.loggers import Logger

from xformer.runs.summary import Summary


class RunLogger(Logger):
    """A logger of one run: it begins when it is built, and the run that it logs ends it.

    Both methods are called on all processes, and do nothing unless a logger has something to say.
    """

    def begin(self, summary: Summary) -> None:
        """Log what is known of the run before it trains."""

    def end(self, exit_code: int, summary: Summary | None = None) -> None:
        """End what was begun, however the run ended; a second time is harmless.

        Args:
            exit_code: 0 for a run that finished; anything else is a failure.
            summary: what `summary.json` holds.
        """
