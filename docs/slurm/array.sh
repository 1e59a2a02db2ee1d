#!/bin/bash
#SBATCH --array=0-4 --gres=gpu:1 --time=24:00:00
#SBATCH --requeue --open-mode=append --signal=USR1@300
srun python -u BACON_cifar10.py --ipc 10 --exp_index $SLURM_ARRAY_TASK_ID --resume
code=$?
if [ $code -eq 75 ]; then scontrol requeue ${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}; fi
exit $code
