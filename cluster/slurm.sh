#!/usr/bin/env bash
# A run on the nodes of a Slurm job; the job is requeued before its time is over, and goes on.
#
#   sbatch cluster/slurm.sh runs_root=/shared/runs name=big experiment=starcoder2_15b
#   sbatch --nodes=8 --gpus-per-node=4 --time=2-0 cluster/slurm.sh ...     # options win over these
#   tail -f selfalign-JOBID.log;  scancel JOBID     # stops it for good; sbatch again goes on
#
# From a checkout with .venv (cluster/setup.sh made it) that all nodes see. runs_root has to be
# absolute and shared, or in a store that all nodes reach (s3://...). Engines take what
# `engine.engines` says, one by default: set it to the number of nodes times GPUs, over
# model.tensor_parallel_size.
#
# Five minutes before the end Slurm sends SIGTERM: the run puts down what it has in flight, and the
# job goes back to the queue. So it is where Slurm preempts a job with REQUEUE and a grace time.
#
# Models: a hub id is downloaded once a node, into HF_HOME below; where home is shared and has room,
# once for all of them: HF_HOME=$HOME/.cache/huggingface sbatch ... Nodes without the internet take
# a folder as model.id. Secrets: sbatch hands the environment on, so `export HF_TOKEN=...` before it
# is enough; never write one into the command.
#
#SBATCH --job-name=selfalign
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?run me with sbatch}"

local_disk=${TMPDIR:-/tmp}/selfalign-$SLURM_JOB_ID
export HF_HOME=${HF_HOME:-$local_disk/huggingface}
# Nobody else on the network may start things on this cluster. srun hands the environment on.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN
export RAY_ADDRESS
port=$((20000 + SLURM_JOB_ID % 20000)) # two jobs may share a node
RAY_ADDRESS=$(.venv/bin/python -c 'import ray; print(ray.util.get_node_ip_address())'):$port
here=${SLURMD_NODENAME:-$(hostname)} # this script runs on the first node
others=$((SLURM_NNODES - 1))
cpus=${SLURM_CPUS_PER_TASK:-1} # srun takes this of sbatch's options only where it is told
step=(srun --overlap --ntasks-per-node=1 --cpus-per-task="$cpus")
ray=(.venv/bin/ray start --block --disable-usage-stats --num-cpus="$cpus")

"${step[@]}" --nodes=1 --nodelist="$here" "${ray[@]}" --head --port="$port" \
    --include-dashboard=false --temp-dir="/tmp/ray-$SLURM_JOB_ID" &
if ((others > 0)); then
    "${step[@]}" --nodes="$others" --exclude="$here" "${ray[@]}" --address="$RAY_ADDRESS" &
fi
.venv/bin/python - "$SLURM_NNODES" <<'PYTHON'
import sys, time
import ray

for attempt in range(150):
    try:
        if not ray.is_initialized():
            ray.init(log_to_driver=False, logging_level="ERROR")
        if sum(node["Alive"] for node in ray.nodes()) >= int(sys.argv[1]):
            sys.exit()
    except ConnectionError:
        pass
    time.sleep(2)
sys.exit(f"selfalign: after five minutes not all of the {sys.argv[1]} nodes have joined")
PYTHON

.venv/bin/python -m selfalign_ray "$@" &
run=$!
is_over=
trap 'is_over=yes; kill -TERM "$run"' TERM
code=0
wait "$run" || code=$?
if [ "$is_over" ]; then
    code=0
    wait "$run" || code=$? # the first wait ended with the signal
    echo "selfalign: the time is over (exit code $code); the job goes back to the queue"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
