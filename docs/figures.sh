#!/bin/bash
# make figures: make the runs behind the figures of README.md and docs/ that are not in docs/runs
# yet, then the tables of these pages. --list prints the runs; other flags, as --data_path, go to
# each of them.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
FLAGS=("$@")

# Flags of our recipe, with the folder where its runs share their experts, and of our recipe without
# experts: the pool, and what belongs to it.
OURS="--recipe ours --expert_path docs/runs/experts"
OURS_POOL="--recipe ours --experts 0 --syn_ce --spread_weight 0 --cooldown 0"

run() { # MINUTES FOLDER SCRIPT FLAGS: print a run
    # Minutes are those on 2 CPU cores (Zen 4), folders lie in docs/runs.
    local shared="--model ConvNetW32 --num_exp 1 --num_eval 3 --epoch_eval_train 200"
    echo "$1 $2 $3 $shared ${*:4}"
}

cifar10_by_seed() {
    local folder=CIFAR10_ConvNetW32_10ipc_200it
    local seed flags
    for seed in 0 1 2 3 4 5 6 7; do
        flags="BACON_cifar10.py --ipc 10 --seed $seed --eval_interval 200"
        run 1 $folder/random_seed$seed $flags --Iteration 0
        [ $seed -le 4 ] || continue
        run 3 $folder/BACON_seed$seed $flags --Iteration 200 --meter_reset 200
        [ $seed -le 2 ] || continue
        run 1 $folder/DM_seed$seed $flags --Iteration 200 --method DM
        run 17 $folder/ours_seed$seed $flags --Iteration 200 $OURS
        run 4 $folder/ours_pool_seed$seed $flags --Iteration 200 $OURS_POOL
        flags="$flags --Iteration 200 --meter_reset 200"
        run 3 $folder/IDM_seed$seed $flags --method IDM
        run 3 $folder/IDM_ce_0.15_seed$seed $flags --method IDM --ce_weight 0.15
        run 3 $folder/IDM_ce_0.05_seed$seed $flags --method IDM --ce_weight 0.05
        run 3 $folder/no_log_likelihood_seed$seed $flags --lh_weight 0
        run 3 $folder/no_total_variation_seed$seed $flags --tv_weight 0
        run 3 $folder/no_cross_entropy_seed$seed $flags --no_syn_ce
        run 3 $folder/residual_clip_seed$seed $flags --clip_prior residual
        run 19 $folder/BACON_fp32_seed$seed $flags --precision fp32
    done
    flags="BACON_cifar10.py --ipc 10 --meter_reset 200"
    run 9 $folder/BACON_seed0_curve $flags --Iteration 200 --eval_interval 50
    flags="BACON_cifar10.py --ipc 10 --Iteration 0"
    run 2 $folder/ours_start_seed0 $flags --recipe ours
    run 1 $folder/ours_start_steps_seed0 $flags --recipe ours --judge_steps 402
    run 2 $folder/half_chroma_random_seed0 $flags --chroma half
    run 1 $folder/half_chroma_random_steps_seed0 $flags --chroma half --judge_steps 402
}

other_ipc() { # DATASET SCRIPT IPC ITERATIONS MINUTES: those of BACON
    local folder=$1_ConvNetW32_$3ipc_$4it
    local flags="$2 --dataset $1 --ipc $3 --eval_interval $4"
    run 1 $folder/random_seed0 $flags --Iteration 0
    run 1 $folder/DM_seed0 $flags --Iteration $4 --method DM
    run $5 $folder/IDM_seed0 $flags --Iteration $4 --method IDM
    run $5 $folder/BACON_seed0 $flags --Iteration $4
    run $((20 + $5)) $folder/ours_seed0 $flags --Iteration $4 $OURS # 20: for its experts
}

cifar100() { # IPC
    local folder=CIFAR100_ConvNetW32_$1ipc_200it
    local flags="BACON_cifar10.py --dataset CIFAR100 --ipc $1 --eval_interval 200"
    run 5 $folder/random_seed0 $flags --Iteration 0
    run 20 $folder/IDM_seed0 $flags --Iteration 200 --method IDM
    run 20 $folder/BACON_seed0 $flags --Iteration 200
    run 30 $folder/ours_seed0 $flags --Iteration 200 $OURS
}

of_1000_iterations() {
    local folder=CIFAR10_ConvNetW32_10ipc_1000it
    local seed ipc flags
    for seed in 0 1 2; do
        flags="BACON_cifar10.py --ipc 10 --seed $seed --eval_interval 1000 --Iteration 1000"
        run 11 $folder/ours_seed$seed $flags $OURS
        run 25 $folder/ours_pool_seed$seed $flags $OURS_POOL
    done
    for ipc in 10 50; do
        folder=MNIST_ConvNetW32_${ipc}ipc_1000it
        flags="BACON_mnist.py --ipc $ipc --eval_interval 1000 --Iteration 1000"
        run 12 $folder/ours_seed0 $flags $OURS
    done
}

width_128() {
    local flags="--model ConvNet --ipc 10 --eval_interval 100 --num_eval 2 --epoch_eval_train 300"
    local folder=CIFAR10_ConvNet_10ipc_300it
    run 8 $folder/random_seed0 BACON_cifar10.py --Iteration 0 $flags
    run 50 $folder/BACON_seed0 BACON_cifar10.py --Iteration 300 $flags
    run 55 $folder/ours_seed0 BACON_cifar10.py --Iteration 300 $flags $OURS_POOL
    run 320 CIFAR10_ConvNet_10ipc_1500it/ours_seed0 BACON_cifar10.py --Iteration 1500 $flags \
        --eval_interval 300 $OURS
    folder=MNIST_ConvNet_10ipc_500it
    run 8 $folder/random_seed0 BACON_mnist.py --Iteration 0 $flags
    run 115 $folder/BACON_seed0 BACON_mnist.py --Iteration 500 $flags
    folder=MNIST_ConvNet_10ipc_150it
    flags="--model ConvNet --ipc 10 --eval_interval 150 --epoch_eval_train 1000"
    run 55 $folder/ours_seed0 BACON_mnist.py --Iteration 150 $flags $OURS_POOL
}

digits() {
    local flags="BACON_mnist.py --dataset Digits --ipc 1 --Iteration 100 --compile"
    local seed precision
    for seed in 0 1 2 3 4; do
        for precision in fp32 bf16; do
            run 1 Digits_ConvNetW32_1ipc_100it/${precision}_seed$seed $flags --num_eval 5 \
                --epoch_eval_train 300 --precision $precision --seed $seed
        done
    done
}

runs() {
    cifar10_by_seed
    other_ipc CIFAR10 BACON_cifar10.py 1 100 3
    other_ipc CIFAR10 BACON_cifar10.py 50 200 3
    other_ipc MNIST BACON_mnist.py 1 100 3
    other_ipc MNIST BACON_mnist.py 10 200 3
    other_ipc MNIST BACON_mnist.py 50 200 3
    cifar100 1
    cifar100 10
    of_1000_iterations
    width_128
    digits
}

if [ "${1:-}" = --list ]; then
    runs
    exit
fi

ended() { # FOLDER: whether its run has ended
    grep -qs '"event": "end"' "docs/runs/$1"/log_*.jsonl
}

left=$(runs | while read -r minutes folder command; do
    ended "$folder" || echo "$minutes $folder $command"
done)
hours=$(awk '{ minutes += $1 } END { printf "%.1f", minutes / 60 }' <<<"$left")
echo "$(grep -c . <<<"$left") runs to go, about $hours hours on 2 CPU cores"
while read -r minutes folder command; do
    [ -n "$folder" ] || continue
    $PYTHON -u $command --resume --save_path "docs/runs/$folder" "${FLAGS[@]}" </dev/null
done <<<"$left"

scores() { # FILE WHAT HOW: what to judge and how, for evaluate.py; into a file below docs/runs
    [ ! -e "docs/runs/$1" ] || return 0
    mkdir -p "docs/runs/${1%/*}"
    $PYTHON evaluate.py "${@:2}" --format json "${FLAGS[@]}" >"docs/runs/$1.tmp"
    mv "docs/runs/$1.tmp" "docs/runs/$1"
}

small=CIFAR10_ConvNetW32_10ipc_200it
longer=CIFAR10_ConvNetW32_10ipc_1000it
sets=(docs/runs/$small/{ours,ours_pool,BACON,IDM}_seed{0,1,2})
scores $small/402_steps.jsonl "${sets[@]}" --judge_steps 402
sets=(docs/runs/$small/{BACON_seed0,{ours,ours_pool}_seed{0,1,2}} --baseline random4 --num_eval 3)
scores $small/1000_epochs.jsonl "${sets[@]}" --epoch_eval_train 1000
scores $small/idc.jsonl "${sets[@]}" --protocol idc
sets=(docs/runs/$longer/{ours,ours_pool}_seed{0,1,2} --num_eval 2)
scores $longer/1000_epochs.jsonl "${sets[@]}" --epoch_eval_train 1000
scores $longer/idc.jsonl "${sets[@]}" --protocol idc
more=CIFAR10_ConvNetW32_50ipc_200it
scores $more/1608_steps.jsonl docs/runs/$more/ours_seed0 --judge_steps 1608
for steps in 402 2002; do
    scores CIFAR10_ConvNetW32_whole/${steps}_steps.jsonl --baseline full --dataset CIFAR10 \
        --model ConvNetW32 --num_eval 3 --judge_steps $steps
done
wide=CIFAR10_ConvNet_10ipc_300it
judges="--num_eval 3"
sets=(docs/runs/$wide/{BACON,ours}_seed0 --baseline random4 $judges)
scores $wide/idc.jsonl "${sets[@]}" --protocol idc
scores $wide/idc_cutout.jsonl docs/runs/$wide/ours_seed0 --num_eval 2 --protocol idc \
    --dsa_strategy color_crop_cutout_flip_scale_rotate
scores $wide/1000_epochs.jsonl "${sets[@]}" --epoch_eval_train 1000
scores $wide/2002_steps.jsonl docs/runs/$wide/ours_seed0 --judge_steps 2002 $judges
widest=CIFAR10_ConvNet_10ipc_1500it
scores $widest/1000_epochs.jsonl docs/runs/$widest/ours_seed0 --epoch_eval_train 1000 $judges
scores $widest/idc.jsonl docs/runs/$widest/ours_seed0 --protocol idc $judges
mnist=MNIST_ConvNet_10ipc_500it
scores $mnist/1000_epochs.jsonl docs/runs/$mnist/BACON_seed0 --epoch_eval_train 1000 $judges
$PYTHON evaluate.py --table docs/runs
$PYTHON docs/tables.py
