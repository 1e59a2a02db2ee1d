#!/bin/bash
# make figures: rerun what is behind the figures of README.md and docs/, in order; what has ended in docs/runs is skipped.
# --list prints the runs; other flags, as --data_path, go to each of them.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python} SHARED="--model ConvNetW32 --num_exp 1 --num_eval 3 --epoch_eval_train 200" FLAGS=("$@")

runs() { # a line each: minutes on 2 CPU cores (Zen 4), folder below docs/runs, the command
    listed | sed "s/\.py /.py $SHARED /"
}

listed() {
    local seed dataset script ipc it name flags
    for seed in 0 1 2; do
        name=CIFAR10_ConvNetW32_10ipc_200it flags="BACON_cifar10.py --ipc 10 --seed $seed --eval_interval 200"
        echo "1 $name/random_seed$seed $flags --Iteration 0"
        echo "1 $name/DM_seed$seed $flags --Iteration 200 --method DM"
        echo "4 $name/ours_seed$seed $flags --Iteration 200 --recipe ours"
        flags="$flags --Iteration 200 --meter_reset 200"
        echo "3 $name/IDM_seed$seed $flags --method IDM"
        echo "3 $name/IDM_ce_0.15_seed$seed $flags --method IDM --ce_weight 0.15"
        echo "3 $name/IDM_ce_0.05_seed$seed $flags --method IDM --ce_weight 0.05"
        echo "3 $name/BACON_seed$seed $flags"
        echo "3 $name/no_log_likelihood_seed$seed $flags --lh_weight 0"
        echo "3 $name/no_total_variation_seed$seed $flags --tv_weight 0"
        echo "3 $name/no_cross_entropy_seed$seed $flags --no_syn_ce"
        echo "3 $name/residual_clip_seed$seed $flags --clip_prior residual"
    done
    for flags in "ours_start --recipe ours" "half_chroma_random --chroma half"; do
        set -- $flags
        echo "2 $name/${1}_seed0 BACON_cifar10.py --ipc 10 --Iteration 0 $2 $3"
        echo "1 $name/${1}_steps_seed0 BACON_cifar10.py --ipc 10 --Iteration 0 $2 $3 --judge_steps 402"
    done
    for dataset in MNIST CIFAR10; do
        [ $dataset = MNIST ] && script=BACON_mnist.py || script=BACON_cifar10.py
        for ipc in 1 10 50; do
            [ $dataset$ipc = CIFAR1010 ] && continue
            [ $ipc = 1 ] && it=100 || it=200
            name=${dataset}_ConvNetW32_${ipc}ipc_${it}it
            flags="$script --dataset $dataset --ipc $ipc --eval_interval $it"
            echo "1 $name/random_seed0 $flags --Iteration 0"
            echo "1 $name/DM_seed0 $flags --Iteration $it --method DM"
            echo "3 $name/IDM_seed0 $flags --Iteration $it --method IDM"
            echo "3 $name/BACON_seed0 $flags --Iteration $it"
            echo "6 $name/ours_seed0 $flags --Iteration $it --recipe ours"
        done
    done
    flags="--model ConvNet --ipc 10 --eval_interval 100 --num_eval 2 --epoch_eval_train 300"
    name=CIFAR10_ConvNet_10ipc_300it
    echo "8 $name/random_seed0 BACON_cifar10.py --Iteration 0 $flags"
    echo "50 $name/BACON_seed0 BACON_cifar10.py --Iteration 300 $flags"
    echo "55 $name/ours_seed0 BACON_cifar10.py --Iteration 300 $flags --recipe ours"
    name=MNIST_ConvNet_10ipc_500it
    echo "8 $name/random_seed0 BACON_mnist.py --Iteration 0 $flags"
    echo "115 $name/BACON_seed0 BACON_mnist.py --Iteration 500 $flags"
    flags="--model ConvNet --ipc 10 --eval_interval 150 --epoch_eval_train 1000"
    echo "55 MNIST_ConvNet_10ipc_150it/ours_seed0 BACON_mnist.py --Iteration 150 $flags --recipe ours"
}

[ "${1:-}" != --list ] || { runs && exit; }

ended() { grep -qs '"event": "end"' "docs/runs/$1"/log_*.jsonl; }

left=$(runs | while read -r minutes folder command; do ended "$folder" || echo "$minutes $folder $command"; done)
echo "$(grep -c . <<<"$left") runs to go, about $(awk '{ m += $1 } END { printf "%.1f", m / 60 }' <<<"$left") hours on 2 CPU cores"
while read -r minutes folder command; do
    [ -z "$folder" ] || $PYTHON -u $command --resume --save_path "docs/runs/$folder" "${FLAGS[@]}" </dev/null
done <<<"$left"

scores() { # file below docs/runs, what to judge and how, for evaluate.py
    [ ! -e "docs/runs/$1" ] || return 0
    mkdir -p "docs/runs/${1%/*}"
    $PYTHON evaluate.py "${@:2}" --format json "${FLAGS[@]}" >"docs/runs/$1.tmp"
    mv "docs/runs/$1.tmp" "docs/runs/$1"
}
small=CIFAR10_ConvNetW32
scores ${small}_10ipc_200it/402_steps.jsonl docs/runs/${small}_10ipc_200it/{ours,BACON,IDM}_seed{0,1,2} --judge_steps 402
scores ${small}_50ipc_200it/1608_steps.jsonl docs/runs/${small}_50ipc_200it/ours_seed0 --judge_steps 1608
for steps in 402 2002; do
    scores ${small}_whole/${steps}_steps.jsonl --baseline full --dataset CIFAR10 --model ConvNetW32 --num_eval 3 --judge_steps $steps
done
wide=CIFAR10_ConvNet_10ipc_300it mnist=MNIST_ConvNet_10ipc_500it
scores $wide/1000_epochs.jsonl docs/runs/$wide/{BACON,ours}_seed0 --epoch_eval_train 1000 --num_eval 3
scores $wide/2002_steps.jsonl docs/runs/$wide/ours_seed0 --judge_steps 2002 --num_eval 3
scores $mnist/1000_epochs.jsonl docs/runs/$mnist/BACON_seed0 --epoch_eval_train 1000 --num_eval 3
$PYTHON evaluate.py --table docs/runs
