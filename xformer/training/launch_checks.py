"""Checks of how training was launched: devices, processes and machines must match the configuration."""

import os

from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import AcceleratorRegistry, CPUAccelerator
from omegaconf import DictConfig

from xformer.errors import RunError
from xformer.runs.job import Job

_INTERACTIVE = ("bash", "interactive")
_RELAUNCHING = ("ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false", "fsdp", "deepspeed")
_ONE_TREE_PER_JOB = ("slurm",)


def check_sweep(job: Job) -> None:
    """Refuse, in a sweep, a strategy that starts the command again for each process.

    Raises:
        RunError: each process would run the whole sweep again, with hyper-parameters of its own.
    """
    strategy = job.config.trainer.get("strategy")
    if job.sweep and strategy in _RELAUNCHING and job.launcher not in _ONE_TREE_PER_JOB:
        raise RunError(
            f"trainer.strategy={strategy} in a sweep would start the whole sweep again in every process; use "
            "hydra/launcher=slurm, or trainer.strategy=ddp_spawn, or one command per run."
        )


def check_machine(trainer: DictConfig) -> None:
    """Refuse an accelerator that this machine does not have.

    Args:
        trainer: the Trainer's settings.

    Raises:
        RunError: naming the available ones.
    """
    wanted = trainer.accelerator
    there = [name for name, found in AcceleratorRegistry.items() if found["accelerator"].is_available()]
    known = ["auto", *there, *(["gpu"] if {"cuda", "mps"} & {*there} else [])]
    if wanted not in known and wanted in (*AcceleratorRegistry, "gpu"):
        raise RunError(
            f"trainer.accelerator={wanted} is not available on this machine; what would work: "
            f"{', '.join(f'trainer.accelerator={name}' for name in known)}."
        )


def check_devices(trainer: Trainer) -> None:
    """Refuse more processes than this machine has cores, and further machines that nothing was launched on.

    Raises:
        RunError: the run would wait for them forever.
    """
    cores = max(2, os.cpu_count() or 1)
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > cores:
        raise RunError(
            f"trainer.devices={trainer.num_devices} would start as many processes, and this machine has {cores} cores; "
            f"use trainer.devices={cores} at most."
        )
    if trainer.num_nodes > 1 and _launched() is None and not {"NODE_RANK", "GROUP_RANK"} & {*os.environ}:
        raise RunError(
            f"trainer.num_nodes={trainer.num_nodes} would wait for other machines, and nothing was launched on them; "
            "use srun or torchrun, or trainer.num_nodes=1."
        )


def check_world_size(trainer: Trainer) -> None:
    """Refuse a number of launched processes that differs from the Trainer's.

    Raises:
        RunError: the numbers differ, so each process would train alone, into one directory.
    """
    launched = _launched()
    if launched is not None and launched[1] != trainer.world_size:
        variable, count = launched
        raise RunError(
            f"{variable}={count} processes were launched, and the trainer is set up for {trainer.world_size} "
            f"(trainer.devices={trainer.num_devices} x trainer.num_nodes={trainer.num_nodes}); set "
            "trainer.strategy=ddp and make devices x num_nodes equal to what was launched."
        )


def _launched() -> tuple[str, int] | None:
    if "WORLD_SIZE" in os.environ:
        return "WORLD_SIZE", int(os.environ["WORLD_SIZE"])
    # An interactive shell or a batch script holds these too: only what srun started has a process id of its own.
    by_srun = "SLURM_PROCID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in _INTERACTIVE
    if by_srun and "SLURM_NTASKS" in os.environ:
        return "SLURM_NTASKS", int(os.environ["SLURM_NTASKS"])
    return None
