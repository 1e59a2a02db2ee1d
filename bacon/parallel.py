"""One distillation over several processes, as torchrun starts them.

Within a pass of canvas updates no class depends on another, so every process owns a share of the
classes: their canvases, the momentum and their real images. Networks are on all processes and stay
equal, because every training step adds the gradients of all shares (`World.sum_`). Random numbers
come from named streams, so every process knows what the others draw, and the result is that of one
process up to the rounding of that sum.
"""

import contextlib
import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

from bacon.errors import (
    OF_ALL_PROCESSES,
    ParallelError,
    UserError,
    in_group,
    is_lack_of_memory,
)

# How long to wait for a process that hangs; one that dies is noticed at once.
TIMEOUT = timedelta(minutes=30)  # within an iteration
PATIENCE = timedelta(hours=24)  # where another may be training a judge


class World:
    """The processes of a run.

    `World()` is a run of one process: it owns every class and exchanges nothing. `leads`: whether
    this is the one process that writes files and speaks to the user.
    """

    def __init__(self, rank=0, size=1, control=None):
        """rank, size: this process among how many. control: the torch.distributed group that
        exchanges Python objects."""
        self.rank = rank
        self.size = size
        self.leads = rank == 0
        self._control = control

    def share(self, count):
        """The part of range(count) that this process owns.

        It is contiguous; sizes differ by one at most.
        """
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum_(self, tensor):
        """Replace a tensor by its sum over all processes, the same to the bit on each."""
        self._collective(dist.all_reduce, tensor)

    def gather(self, tensor, count):
        """Concatenate what the processes hold of `count` rows, in the order of `share`.

        Every process gets all rows.
        """
        if self.size == 1:
            return tensor
        sizes = [len(World(rank, self.size).share(count)) for rank in range(self.size)]
        padded = tensor.new_zeros(max(sizes), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in sizes]
        self._collective(_gather_and_wait, parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def gather_objects(self, value):
        """Every process's `value` (plain Python), as a list by rank, on every process.

        No device is waited for.
        """
        values = [value] * self.size
        self._collective(dist.all_gather_object, values, value, self._control)
        return values

    def from_leader(self, function):
        """What function() returns on the leading process, on every process.

        function: returns plain containers and tensors. If it fails there, by a mistake of the user
        or an operating system error, every process ends.
        """
        value = None
        error = None
        if self.leads:
            try:
                value = function()
            except (UserError, OSError) as failure:
                error = failure
        # Not gathered: to gather a checkpoint takes room for one of every process on each.
        sent = [value, error is not None]
        self._collective(dist.broadcast_object_list, sent, 0, self._control)
        value, failed = sent
        if error:
            raise error
        if failed:
            raise SystemExit(2)  # the leading process says why
        return value

    def _collective(self, operation, *args):
        if self.size == 1:
            return
        try:
            operation(*args)
        except RuntimeError as error:  # how the backends report a closed connection or a timeout
            if is_lack_of_memory(error):
                raise
            lost = f"process {self.rank} of {self.size} lost contact with the others"
            raise ParallelError(lost) from error


def _gather_and_wait(parts, padded):
    # What is gathered is written to files: waited for, and less long than until a watchdog ends it
    # half done.
    dist.all_gather(parts, padded, async_op=True).wait(TIMEOUT * 0.9)


def number_of(name, missing=None):
    """The whole number in an environment variable of torchrun's.

    missing: the number where it is not set or empty. UserError if it holds anything else, or if it
    has to be there.
    """
    text = os.environ.get(name, "").strip()
    if not text and missing is not None:
        return missing
    if not text.isdecimal():
        ways = "start with torchrun, or unset TORCHELASTIC_RUN_ID for one process"
        raise UserError(f"{name}={text}: must be a whole number, which torchrun sets; {ways}")
    return int(text)


@contextlib.contextmanager
def joined(device):
    """The `World` of the processes that torchrun started, if it did, for a `with` block.

    By --device, NCCL connects GPUs, each process taking the one of its number on its machine; gloo
    connects CPUs, also where there are GPUs: a run that goes on from a CPU's checkpoint stays on
    the CPU. UserError for a device that cannot be shared, ParallelError if there is no connection.
    Where a process fails over NCCL it stays connected: see `end_if_connected`.
    """
    size = number_of("WORLD_SIZE", 1) if in_group() else 1
    if size < 2:
        yield World()
        return
    rank = number_of("RANK")
    local = number_of("LOCAL_RANK")
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if device == "mps":
        raise UserError("--device mps: several processes need cuda or cpu")
    if cuda and local >= torch.cuda.device_count():
        there = f"process {local} has no GPU of its own, there are {torch.cuda.device_count()}"
        advice = "start one process per GPU, or use --device cpu"
        raise UserError(f"--nproc_per_node: {there}; {advice}")
    try:
        control = _connect(cuda, local)
    except RuntimeError as error:
        failed = f"process {rank} of {size} cannot reach the others ({error})"
        raise ParallelError(failed) from error
    world = World(rank, size, control)
    all_end = False
    try:
        yield world
        world.gather_objects(None)  # nobody hangs up while another is still listening
        all_end = True
    except OF_ALL_PROCESSES:
        all_end = True
        raise
    finally:
        # Nobody may hold a group beyond this: freed as the interpreter ends, gloo aborts the
        # process now and then.
        world._control = None
        del control
        if all_end or not cuda:  # NCCL waits there for all processes
            dist.destroy_process_group()


def end_if_connected(code):
    """End a process that is still connected, see `joined`, with an exit code; else do nothing.

    The process ends at once: at the end of the interpreter the others might be waited for. They
    notice that it is gone.
    """
    if dist.is_available() and dist.is_initialized():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
        os._exit(code)


def _connect(cuda, local):
    """Connect with the other processes; the group that exchanges Python objects.

    local: the number of this process on its machine.
    """
    if cuda:
        torch.cuda.set_device(local)
    # NCCL's watchdog shall end a collective that hangs, not the process: the next one then raises.
    # torchrun sets 1.
    os.environ |= {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "2", "TORCH_NCCL_DUMP_ON_TIMEOUT": "0"}
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=TIMEOUT)
    return dist.new_group(backend="gloo", timeout=PATIENCE)
