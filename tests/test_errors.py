"""The one error that is no `Exception`: a signal, with the exit code that shells expect."""

import signal
import subprocess
import sys

import pytest

from xformer.errors import Interrupted, XformerError


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "Stopped by Ctrl-C."), (signal.SIGTERM, 143, "Stopped by SIGTERM.")],
)
def test_a_signal_ends_the_process_with_its_code(number: signal.Signals, code: int, said: str) -> None:
    assert (Interrupted(number).code, str(Interrupted(number))) == (code, said)
    assert Interrupted(number, 0).code == 0
    raising = f"import signal; from xformer.errors import Interrupted; raise Interrupted(signal.Signals({number}))"
    assert subprocess.run([sys.executable, "-c", raising], check=False).returncode == code


def test_who_goes_on_after_errors_does_not_go_on_after_a_signal() -> None:
    assert not issubclass(Interrupted, Exception)
    assert not XformerError.reported
