#!/bin/bash
# On every node: `HEAD=<address of the first> NODES=4 recipes/cluster/torchrun.sh ssamba_base_run --config ssamba_base --config repaired`.
set -euo pipefail
name=$1
shift
export OMP_NUM_THREADS=1
exec .venv/bin/torchrun --nnodes "${NODES:-1}" --nproc-per-node "${DEVICES:-8}" --rdzv-backend c10d --rdzv-endpoint "${HEAD:-localhost}:29500" \
    --no-python .venv/bin/ssl-audio pretrain "$@" --config recipes/cluster/gpu.yaml --name "$name" \
    --trainer.devices "${DEVICES:-8}" --trainer.num_nodes "${NODES:-1}"
