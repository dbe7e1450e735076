"""A contrastive step whose memory doesn't grow with its batch (GradCache, arXiv 2101.06983), over any processes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from edgegeo.train.parallel import World
from edgegeo.train.sequences import Row

Embed = Callable[[Sequence[Row]], Tensor]
"""Rows to unit embeddings (N, D)."""


def backward_in_chunks(
    rows: Sequence[Row], embed: Embed, loss_of: Callable[[Tensor], Tensor], chunk: int, seed: int, world: World
) -> float:
    """Leave the gradients of `loss_of(embed(rows))`, holding the graph of `chunk` rows at a time; returns the loss.

    Embeddings are computed without a graph and gathered from all processes; the loss and its gradient by the
    embeddings are exact over all of them; then each chunk is computed again with its graph, with the dropout it had.
    """
    mine = world.share(rows)
    starts = range(0, len(mine), chunk)
    if len(starts) == 1 and world.size == 1:
        torch.manual_seed(seed)
        loss = loss_of(embed(mine))
        loss.backward()
        return float(loss.detach())
    seeds = [seed + 7919 * (world.rank * len(rows) + start) for start in starts]
    with torch.no_grad():
        parts = []
        for start, own in zip(starts, seeds, strict=True):
            torch.manual_seed(own)
            parts.append(embed(mine[start : start + chunk]))
    whole = world.gather(torch.cat(parts), len(rows)).requires_grad_()
    loss = loss_of(whole)
    loss.backward()
    assert whole.grad is not None
    gradient = whole.grad[world.rank :: world.size]
    for start, own in zip(starts, seeds, strict=True):
        torch.manual_seed(own)
        part = embed(mine[start : start + chunk])
        (part * gradient[start : start + chunk]).sum().backward()
    return float(loss.detach())
