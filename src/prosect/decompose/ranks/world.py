"""Processes that work together: who is which, what they say to one another, and what happens if one dies."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from prosect.core.canonical import Json, digest
from prosect.core.errors import BadInput, Conflict, ProsectError

PATIENCE = timedelta(days=1)
"""How long a rank that says nothing is waited for: one may harvest for hours. One that dies is noticed at once."""


class RankLost(ProsectError):
    """Another process of the same training stopped or cannot be reached."""

    exit_code = 2


@dataclass(frozen=True)
class World:
    """One of several processes; make it with `joined`.

    What is said is added or put together in an order that depends on the ranks alone, so all ranks hold the
    same bits afterwards.

    Attributes:
        rank: which of them this is, from 0.
        size: how many there are.
    """

    rank: int
    size: int

    def sum(self, x: Tensor) -> Tensor:
        """The sum over ranks; ``x`` itself stays as it is."""
        out = x.detach().clone()
        with self._others():
            dist.all_reduce(out)
        return out

    def add_(self, x: Tensor) -> None:
        """The sum over ranks in the place of ``x``, for what is too large to copy."""
        with self._others():
            dist.all_reduce(x)

    def gather(self, x: Tensor) -> list[Tensor]:
        """What each rank has, in their order; all have the same shape."""
        x = x.detach().contiguous()
        out = [torch.empty_like(x) for _ in range(self.size)]
        with self._others():
            dist.all_gather(out, x)
        return out

    def gather_first(self, x: Tensor) -> list[Tensor]:
        """What each rank has, in their order, on the first rank; nothing on the others."""
        x = x.detach().contiguous()
        out = [torch.empty_like(x) for _ in range(self.size)] if self.rank == 0 else []
        with self._others():
            dist.gather(x, out or None)
        return out

    def spread_(self, x: Tensor) -> None:
        """The first rank's numbers in the place of ``x``."""
        with self._others():
            dist.broadcast(x, 0)

    def wait(self) -> None:
        """Until every rank is here."""
        self.sum(torch.zeros(1))

    def agree(self, what: str, said: Json) -> None:
        """Raises Conflict on every rank unless all say the same of ``what``."""
        mine = torch.tensor(list(bytes.fromhex(digest(said))), dtype=torch.int32)
        others = [rank for rank, theirs in enumerate(self.gather(mine)) if not torch.equal(theirs, mine)]
        if others:
            raise Conflict(
                f"another {what} on rank {others[0]} than on rank {self.rank}",
                "the same on every rank",
                "the same command, files and versions everywhere",
            )

    @contextmanager
    def _others(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            reason = str(error).strip().splitlines()
            raise RankLost(
                f"rank {self.rank} of {self.size} stops because another rank stopped or cannot be reached "
                f"({reason[-1] if reason else type(error).__name__}); its own message says why. Started again, "
                "training goes on from the last checkpoint"
            ) from error


def launched(environment: Mapping[str, str] | None = None) -> bool:
    """Whether this process is one of several that torchrun, or something like it, started together."""
    return int((os.environ if environment is None else environment).get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined(
    where: str = "env://", rank: int | None = None, size: int | None = None, patience: timedelta = PATIENCE
) -> Iterator[World]:
    """This process as one of several, for as long as the block lasts.

    Gloo carries what lies on the CPU and NCCL what lies on GPUs, of which each process takes the one that its
    ``LOCAL_RANK`` names.

    Args:
        where: how they find one another: what torchrun put into the environment, or ``file://`` and the path of
            a file on a disk that all share and that is not there yet.
        rank: which of them this is; None asks the environment.
        size: how many there are; None asks the environment.
        patience: how long to wait for a rank that says nothing.

    Raises:
        BadInput: neither arguments nor environment say which rank this is.
        RankLost: the others cannot be reached.
    """
    try:
        rank = int(os.environ["RANK"]) if rank is None else rank
        size = int(os.environ["WORLD_SIZE"]) if size is None else size
    except KeyError as error:
        raise BadInput(
            f"a process without {error.args[0]} in its environment",
            "one of several that were started together",
            "torchrun --nproc-per-node N --no-python prosect fit ...",
        ) from error
    if not 0 <= rank < size:
        raise BadInput(f"rank {rank} of {size}", f"0 to {size - 1}")
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            init_method=where,
            rank=rank,
            world_size=size,
            timeout=patience,
        )
    except (RuntimeError, ValueError) as error:
        raise RankLost(f"rank {rank} of {size} cannot reach the others at {where} ({error})") from error
    try:
        yield World(rank, size)
    finally:
        dist.destroy_process_group()
