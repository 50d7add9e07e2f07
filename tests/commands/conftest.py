"""The run directories that the commands about studies read."""

from tests.studies.conftest import make_run as make_run
from tests.studies.conftest import sweep as sweep
