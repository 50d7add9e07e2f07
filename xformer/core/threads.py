"""The number of threads of a run, and how idle threads wait.

The number of threads decides the order of sums, and so the last bits of every result. It therefore depends only on the
model's width and the cores that the process may use, not on the load of the machine; a resumed run keeps its number.

Idle threads must not spin, because they would block a core that another process needs. OpenMP reads its wait policy
when torch is loaded, so this module is imported before torch and does not import it at the top.
"""

import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

AUTO = "auto"
_WIDTH_PER_THREAD = 64  # narrower matrices cost more to share out than to compute
_PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}  # the second is for Intel's and LLVM's OpenMP
_LIMIT = "OMP_NUM_THREADS"
_allowed = os.environ.get(_LIMIT, "")


def wait_passively() -> None:
    """Let idle threads sleep, unless the environment says otherwise; call this before torch is imported."""
    for variable, value in _PASSIVE.items():
        os.environ.setdefault(variable, value)


def usable_cores() -> int:
    """The number of cores that this process may use, by its affinity and its control group."""
    from joblib import cpu_count

    return int(cpu_count())


def thread_count(config: DictConfig, *, at_once: int = 1, earlier: Path | None = None) -> int:
    """The number of threads of a run.

    Args:
        config: `threads` is a number, or `auto`: one for every 64 of the model's width, limited by this process's share
            of the cores and by OMP_NUM_THREADS.
        at_once: how many runs share the machine, such as the jobs of a sweep.
        earlier: the configuration of the run that is resumed, whose number `auto` keeps.
    """
    asked = config.get("threads", AUTO)
    if asked != AUTO:
        return int(asked)
    if earlier is not None and (began := _of_file(earlier)) is not None:
        return began
    share = usable_cores() // (at_once * _processes(config.trainer))
    limit = int(_allowed) if _allowed.isdigit() else share
    return max(1, min(int(config.size.d_model) // _WIDTH_PER_THREAD, share, limit))


def set_threads(threads: int) -> None:
    """Set the number of threads of this process and its child processes."""
    import torch

    os.environ[_LIMIT] = str(threads)  # else Lightning gives each of its processes an equal part of all cores
    torch.set_num_threads(threads)


def _of_file(file: Path) -> int | None:
    try:
        found = OmegaConf.select(OmegaConf.load(file), "threads")
    except (OSError, OmegaConfBaseException, YAMLError, ValueError):
        return None
    return found if isinstance(found, int) else None


def _processes(trainer: DictConfig) -> int:
    """The number of processes of one run on this machine."""
    launched = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or ""
    if launched.isdigit():
        return int(launched)
    devices = trainer.devices
    if str(devices).isdigit():
        return int(devices)
    if OmegaConf.is_list(devices):
        return len(devices)
    from xformer.core.devices import device_count

    return max(1, device_count())  # auto and -1: one for each
