"""Kill a real run again and again, resume it each time, and compare what it leaves with an
undisturbed run's.

    python tests/torture.py

50 SIGKILLs at random moments, then 15 SIGTERMs; takes about ten minutes.

Every process is a script with a real command line, on Digits, that writes a checkpoint at every
iteration and before every judge. The killed ones run with an artificial delay in the middle of each
checkpoint write and before each rename, so that many kills fall there. Exits with 1 if anything but
times and `resume` events differs."""

import argparse
import io
import json
import os
import random
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [
    "BACON_mnist.py",
    "--dataset=Digits",
    "--model=ConvNetW32",
    "--ipc=1",
    "--Iteration=25",
    "--eval_interval=12",
    "--batch_real=20",
    "--trained_bs=64",
    "--model_train_steps=5",
    "--net_generate_interval=5",
    "--net_num=6",
    "--num_exp=2",
    "--num_eval=2",
    "--epoch_eval_train=30",
    "--meter_reset=7",
    "--precision=fp32",
    "--no_compile",
    "--checkpoint_minutes=0",
    "--save_path=result",
    "--resume",
]
OF_A_PROCESS = {"time", "seconds", "seconds_per_iteration", "seconds_total", "command"}


def slow_child(command):
    """Run a script in this process, with checkpoint writes that dwell in the middle and before
    their renames."""
    save, replace = torch.save, os.replace

    def slow_save(obj, f):
        whole = io.BytesIO()
        save(obj, whole)
        content = whole.getvalue()
        f.write(content[: len(content) // 2])
        f.flush()
        time.sleep(0.15)
        f.write(content[len(content) // 2 :])

    def slow_replace(source, target):
        time.sleep(0.02)
        replace(source, target)

    torch.save, os.replace = slow_save, slow_replace
    sys.argv = command
    runpy.run_path(str(ROOT / command[0]), run_name="__main__")


def start(folder, slow):
    folder.mkdir(exist_ok=True)
    script = (
        [str(Path(__file__).resolve()), "--child", *COMMAND]
        if slow
        else [str(ROOT / COMMAND[0]), *COMMAND[1:]]
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive"}
    return subprocess.Popen(
        [sys.executable, "-u", *script],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def events(log):
    """The events of a log but for `resume`, without times and without the command line they came
    from."""
    found = [json.loads(line) for line in log.read_text().splitlines()]
    return [
        {k: v for k, v in e.items() if k not in OF_A_PROCESS}
        for e in found
        if e["event"] != "resume"
    ]


def outcome(folder):
    """What a run leaves: the bytes of the result and of the pictures, the log's events without
    times."""
    result = folder / "result"
    files = {
        path.name: path.read_bytes() for path in result.iterdir() if path.suffix in (".pt", ".png")
    }
    (log,) = result.glob("log_*.jsonl")
    others = [p.name for p in result.iterdir() if p.suffix not in (".pt", ".png", ".jsonl")]
    return files, events(log), others


def differences(folder, reference):
    """In words, what differs between two outcomes."""
    files, found, others = outcome(folder)
    words = [f"left behind: {name}" for name in others]
    words += [
        f"{name} differs"
        for name in sorted(files.keys() | reference[0].keys())
        if files.get(name) != reference[0].get(name)
    ]
    if found != reference[1]:
        words.append(
            f"{len(found)} log events differ from the {len(reference[1])} of the undisturbed run"
        )
    return words


def disturb(root, name, number, reference, rng):
    """Send the signal `number` times to runs that are resumed until they end: (counts,
    differences)."""
    count = {
        "signals": 0,
        "in a write": 0,
        "before the first checkpoint": 0,
        "exit 75": 0,
        "runs": 0,
        "starts": 0,
    }
    wrong, folder = [], None
    while count["signals"] < number or folder:
        if folder is None:
            folder = root / f"{name}_{count['runs']}"
        process = start(folder, slow=True)
        count["starts"] += 1
        if count["signals"] < number:
            if (
                rng.random() < 0.8
            ):  # while it distils or judges; else at any time from its first instant
                for line in process.stdout:
                    if line.startswith("files"):
                        break
                time.sleep(rng.uniform(0, 2.5))
            else:
                time.sleep(rng.uniform(0, 5))
            if process.poll() is None:
                process.send_signal(signal.Signals[name])
                count["signals"] += 1
        text, _ = process.communicate(timeout=300)
        result = folder / "result"
        if process.returncode == 0:
            wrong += [f"{folder.name}: {words}" for words in differences(folder, reference)]
            count["runs"], folder = count["runs"] + 1, None
        elif process.returncode == 75 and name != "SIGKILL":
            count["exit 75"] += 1
        elif process.returncode != -signal.Signals[name]:
            wrong.append(f"{folder.name}: exit code {process.returncode}: {text[-500:]}")
            folder = None
        elif result.is_dir():
            count["in a write"] += any(result.glob("*.tmp"))
            count["before the first checkpoint"] += not any(result.glob("ckpt_*.pt"))
        else:
            count["before the first checkpoint"] += 1
    return count, wrong


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--terms", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    rng, wrong, began = random.Random(args.seed), [], time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        process = start(Path(root) / "undisturbed", slow=False)
        text, _ = process.communicate(timeout=300)
        assert process.returncode == 0, text
        reference = outcome(Path(root) / "undisturbed")
        print(f"undisturbed: {len(reference[0])} files, {len(reference[1])} log events", flush=True)
        for name, number in (("SIGKILL", args.kills), ("SIGTERM", args.terms)):
            count, more = disturb(Path(root), name, number, reference, rng)
            wrong += more
            print(
                f"{name}: " + ", ".join(f"{key} {value}" for key, value in count.items()),
                flush=True,
            )
    for line in wrong:
        print(line)
    verdict = (
        f"{len(wrong)} differences"
        if wrong
        else "every run ended in bitwise the same files and the same events"
    )
    print(f"{verdict}; {time.monotonic() - began:.0f} s")
    return bool(wrong)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        slow_child(sys.argv[2:])
    else:
        sys.exit(main())
