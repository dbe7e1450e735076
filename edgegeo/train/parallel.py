"""Several processes as one: each computes its share of a step, all of them end with the same weights.

Started by `accelerate launch -m edgegeo train ...` (or torchrun); a single process needs nothing of it.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
PATIENCE = timedelta(hours=6)
"""For what only the first process does while the others wait: drawing places, mining negatives."""


class World:
    """The processes of a run, by rank."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(self.device)
        if self.size > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("nccl" if self.device.type == "cuda" else "gloo", timeout=PATIENCE)

    @property
    def first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        """This process's part of a step's rows."""
        return rows[self.rank :: self.size]

    def gather(self, mine: Tensor, count: int) -> Tensor:
        """(count, D) of all processes from each one's share, in the order before `share`; no gradient passes."""
        if self.size == 1:
            return mine
        longest = -(-count // self.size)
        padded = torch.zeros(longest, *mine.shape[1:], dtype=mine.dtype, device=mine.device)
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        torch.distributed.all_gather(parts, padded)
        return torch.stack(parts, 1).flatten(0, 1)[:count]

    def total(self, value: float) -> float:
        """The sum of a number over all processes."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64 if self.device.type == "cpu" else torch.float32)
        tensor = tensor.to(self.device)
        torch.distributed.all_reduce(tensor)
        return float(tensor)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Every process gets the sum of all gradients."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad)

    def told(self, find: Callable[[], T]) -> T:
        """What the first process finds, in every process: for what must be equal to the last bit."""
        if self.size == 1:
            return find()
        said: list[T | None] = [find() if self.first else None]
        torch.distributed.broadcast_object_list(said, 0)
        found: T = said[0]  # type: ignore[assignment]  # the first process's
        return found

    def in_turn(self, act: Callable[[], T]) -> T:
        """The first process acts before the others do: what it draws into a cache they find there."""
        found = act() if self.first else None
        self.wait()
        return act() if found is None else found

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            torch.distributed.barrier()

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
