#!/usr/bin/env bash
# One run over several devices, with torchrun. Every word after the script goes to train.py:
#
#     launch/torchrun.sh attention=linformer                  every GPU of this machine
#     PROCESSES=2 launch/torchrun.sh attention=linformer      two processes, on whatever there is
#
# Several machines, the same command on each but for NODE_RANK, in a directory that they share:
#
#     NNODES=2 NODE_RANK=0 MASTER_ADDR=first.machine launch/torchrun.sh hydra.run.dir=outputs/both
#     NNODES=2 NODE_RANK=1 MASTER_ADDR=first.machine launch/torchrun.sh hydra.run.dir=outputs/both
#
# PYTHON names another interpreter than .venv/bin/python.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
nodes=${NNODES:-1}
processes=${PROCESSES:-$("$python" -c 'import torch; print(max(1, torch.cuda.device_count()))')}

directory=
for word in "$@"; do
    if [[ $word == hydra.run.dir=* ]]; then directory=${word#*=}; fi
done

if ((nodes > 1)); then
    : "${directory:?several machines need one hydra.run.dir=DIR, the same on each}"
    meeting=("--node-rank=${NODE_RANK:?which of the $nodes machines is this, from 0}"
        "--master-addr=${MASTER_ADDR:?the name of machine 0}" "--master-port=${MASTER_PORT:-29500}")
else
    meeting=(--standalone) # on a free port
fi

# Each process would work out a time stamp of its own: fix the directory here, once for all of them. The words typed
# come last, so that they win.
exec "$python" -m torch.distributed.run "--nnodes=$nodes" "--nproc-per-node=$processes" "${meeting[@]}" \
    train.py \
    "hydra.run.dir=${directory:-outputs/$(date +%Y-%m-%d/%H-%M-%S)-torchrun}" \
    "trainer.num_nodes=$nodes" \
    "trainer.devices=$processes" \
    trainer.strategy=ddp \
    "$@"
