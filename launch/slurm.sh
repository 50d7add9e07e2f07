#!/usr/bin/env bash
# One run on SLURM, safe to requeue. From the repository root, every word after the script going to train.py:
#
#     sbatch launch/slurm.sh attention=linformer seed=1
#     sbatch --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 launch/slurm.sh size=base
#
# One task per device. PYTHON names another interpreter than .venv/bin/python. For a sweep of many jobs use
# `python train.py -m hydra/launcher=slurm ...` instead.
#
#SBATCH --job-name=xformer
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=04:00:00
#SBATCH --output=slurm-%j.log
# Shortly before the time is up, the tasks get USR1: they save a checkpoint and put the job back into the queue.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=USR1@90
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:?start this script with sbatch}"

# A job keeps its number when it is requeued, so this directory is the same one again. A time stamp would not be, and
# the run would start over.
directory="outputs/slurm-${SLURM_JOB_ID}"
for word in "$@"; do
    if [[ $word == hydra.run.dir=* ]]; then directory=${word#*=}; fi
done

resume=()
if compgen -G "$directory/checkpoints/*.ckpt" > /dev/null || compgen -G "$directory/hpc_ckpt_*.ckpt" > /dev/null; then
    resume=(resume=true)
fi

strategy=auto
if ((SLURM_NTASKS > 1)); then strategy=ddp; fi

# The words typed come last, so that they win.
srun "${PYTHON:-.venv/bin/python}" train.py \
    "hydra.run.dir=$directory" \
    "trainer.num_nodes=$SLURM_JOB_NUM_NODES" \
    "trainer.devices=$SLURM_NTASKS_PER_NODE" \
    "trainer.strategy=$strategy" \
    "${resume[@]}" "$@"
