"""Several processes that train one model, each on its part of every batch: torch.distributed, in a few words.

Everything here also works in a single process, where it does nothing.
"""

import os
from datetime import timedelta

import torch
from torch import distributed


def start():
    """Join the processes that torchrun started, if it did: with a GPU for each over NCCL, else over gloo.

    Raises:
        ValueError: if there are more processes than GPUs.
    """
    if "LOCAL_RANK" not in os.environ or distributed.is_initialized():
        return
    backend = "gloo"
    if torch.cuda.is_available():
        n, here = torch.cuda.device_count(), int(os.environ["LOCAL_RANK"])
        if here >= n:
            raise ValueError(f"torchrun started more processes than the {n} GPUs here: give --nproc-per-node {n}.")
        torch.cuda.set_device(here)
        backend = "cpu:gloo,cuda:nccl"
    # While the first process prepares photos the others wait for hours, which is no fault.
    distributed.init_process_group(backend, timeout=timedelta(hours=12))


def stop():
    """Leave the other processes, if there are any."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def rank():
    """The number of this process: 0 is the one that prints, plots and saves."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world():
    """The number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def share(items):
    """This process's part of a list."""
    return items[rank() :: world()]


def first_of_all(function):
    """What the function returns in the first process, in all of them; or the error that it raised there."""
    if world() == 1:
        return function()
    tried = _tried(function) if rank() == 0 else [None, None]
    distributed.broadcast_object_list(tried)
    result, error = tried
    if error:
        raise error
    return result


def _tried(function):
    """`[result, error]`, one of them None."""
    try:
        return [function(), None]
    except Exception as error:
        return [None, error]


def first_of_machine(function):
    """What the function returns in the first process of the machine; or an error that it raised in any of these."""
    if world() == 1:
        return function()
    machine, first = os.environ.get("GROUP_RANK"), int(os.environ.get("LOCAL_RANK", rank())) == 0
    firsts = {there: tried for there, tried in gather((machine, first and _tried(function))) if tried}
    for _, error in firsts.values():
        if error:
            raise error
    return firsts[machine][0]


def gather(value):
    """The values of all processes, a list."""
    if world() == 1:
        return [value]
    values = [None] * world()
    distributed.all_gather_object(values, value)
    return values


def any_of(flags):
    """For each flag of a list whether it is set in any process."""
    if world() == 1:
        return flags
    flags = torch.tensor(flags, dtype=torch.int32)
    distributed.all_reduce(flags, distributed.ReduceOp.MAX)
    return flags.bool().tolist()


def same_buffers(model):
    """Give all processes the first one's buffers: each updated its batch norms from its own photos."""
    for buffer in model.buffers() if world() > 1 else ():
        distributed.broadcast(buffer, 0)
