#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=1 --gpus-per-node=4 --time=24:00:00
#SBATCH --requeue --open-mode=append --signal=TERM@300
head=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1)
log=result/log_BACON_TinyImageNet_ConvNet_10ipc.jsonl
before=$(stat -c %Y%s $log 2>/dev/null)
srun torchrun --nnodes=$SLURM_NNODES --nproc_per_node=4 --rdzv_id=$SLURM_JOB_ID --rdzv_backend=c10d \
    --rdzv_endpoint=$head:29500 --shutdown-timeout=240 BACON_tiny.py --ipc 10 --resume
code=$?
if [ "$(stat -c %Y%s $log)" != "$before" ] && tail -n 1 $log | grep -q interrupted; then
    scontrol requeue $SLURM_JOB_ID
fi
exit $code
