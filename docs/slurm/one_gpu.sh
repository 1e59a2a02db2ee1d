#!/bin/bash
#SBATCH --gres=gpu:1 --time=24:00:00
#SBATCH --requeue --open-mode=append --signal=USR1@300
srun python -u BACON_cifar10.py --ipc 10 --resume
code=$?
if [ $code -eq 75 ]; then scontrol requeue $SLURM_JOB_ID; fi
exit $code
