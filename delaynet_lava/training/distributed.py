"""Several processes as one: torchrun's process group, shares of work, sums over the processes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numba
import torch
import torch.distributed as dist

from delaynet_lava.errors import DelayNetError

__all__ = ["Group", "process_group"]

# A process that died is noticed at once; this is for one that hangs, or whose machine is gone. Nobody
# waits that long for the slowest of several equal shares.
PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True)
class Group:
    """This process among those that work together; by default it is alone.

    Attributes:
        rank: number of this process, 0 to ``size - 1``. size: number of processes.
        device: "cpu" or "cuda", where they compute.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    def share(self, count: int) -> range:
        """This process's part of ``range(count)``; the parts are as even as can be, in order of rank."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def total(self, values: Sequence[float]) -> list[float]:
        """Sum of each value over all processes, in float64: the same bits in each of them.

        Every process has to call it, and waits for the others.
        """
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return sums.tolist()


def _lost(words: str) -> str:
    """What became of the other processes; torch's words have addresses and places in its sources."""
    if re.search("time[d ]*out", words, re.IGNORECASE):
        return f"none answered within {PATIENCE.seconds // 60} minutes"
    if re.search("clos|reset|refused|broken|peer", words, re.IGNORECASE):
        return "one of them ended"
    return "the connection failed"


@contextmanager
def process_group(device: str = "cpu") -> Iterator[Group]:
    """The processes that torchrun started, joined while inside; without torchrun, this one alone.

    Torch and Numba get this process's share of the machine's cores: torchrun leaves torch one, and
    Numba does not know of the other processes.

    Raises:
        DelayNetError: another process ended, or did not answer for ten minutes.
    """
    size = int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1
    if size == 1:
        yield Group()
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, min(cores // int(os.environ["LOCAL_WORLD_SIZE"]), numba.get_num_threads()))
    numba.set_num_threads(threads)
    torch.set_num_threads(threads)
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    try:
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
        yield Group(dist.get_rank(), size, device)
    except RuntimeError as error:
        # Gloo's own failures have no class.
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise DelayNetError(
            f"no contact with the other processes of this training ({_lost(str(error))})"
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
