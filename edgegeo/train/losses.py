"""Losses of every training verb, on plain tensors."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(queries: Tensor, keys: Tensor, scale: Tensor | float, symmetric: bool = True) -> Tensor:
    """InfoNCE with in-batch negatives: row i of `queries` (N, D) belongs to row i of `keys` (M, D), M >= N.

    Rows are L2-normalised; `scale` is one over the temperature. Symmetric averages both directions (SLQ), one
    direction asks queries only (NGCG-MLLM's code). Keys beyond N are negatives of every query.
    """
    logits = scale * queries @ keys.T
    target = torch.arange(len(logits), device=logits.device)
    forward = F.cross_entropy(logits, target)
    return (forward + F.cross_entropy(logits[:, : len(logits)].T, target)) / 2 if symmetric else forward


def nested(queries: Tensor, keys: Tensor, dims: Sequence[int], loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """A contrastive loss of whole unit embeddings (N, D), plus that of their first d numbers for every d of `dims`.

    Matryoshka Representation Learning (arXiv 2205.13147, equation 1, all weights 1): prefixes become embeddings of
    their own, normalised again.
    """
    total = loss(queries, keys)
    for dim in dims:
        total = total + loss(unit(queries[:, :dim]), unit(keys[:, :dim]))
    return total


def unit(hidden: Tensor) -> Tensor:
    """(..., D) vectors of length one, float32."""
    return F.normalize(hidden.float(), dim=-1)


def last_positions(hidden: Tensor, lengths: Tensor) -> Tensor:
    """EOS pooling: the last non-pad state (N, D) of right-padded sequences (N, T, D)."""
    return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]


def pooled(hidden: Tensor, lengths: Tensor, pooling: str, last: int = 1) -> Tensor:
    """(N, D) of right-padded states (N, T, D): "eos", the "mean" of all real positions, or of the "last_k" of them."""
    if pooling == "eos":
        return last_positions(hidden, lengths)
    places = torch.arange(hidden.shape[1], device=hidden.device)[None]
    first = lengths[:, None] - last if pooling == "last_k" else torch.zeros_like(lengths)[:, None]
    inside = ((places < lengths[:, None]) & (places >= first)).to(hidden.dtype)[..., None]
    return (hidden * inside).sum(1) / inside.sum(1)


def answer_loss(hidden: Tensor, labels: Tensor, head: Tensor, start: int = 1) -> Tensor:
    """Next-token cross-entropy of `labels` (N, T), -100 where nothing is asked; hidden (N, T, D), head (V, D).

    Nothing before position `start` is asked. The window keeps its shape from step to step, because on a CPU every
    new matrix shape costs a compilation.
    """
    logits = hidden[:, start - 1 : -1] @ head.T
    return F.cross_entropy(logits.flatten(0, 1).float(), labels[:, start:].flatten(), ignore_index=-100)


def weighted_loss(logits: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """Sum over (N,) tokens of weight times next-token cross-entropy; logits (N, V). Divide by the sum of weights."""
    return (F.cross_entropy(logits.float(), ids, reduction="none") * weights).sum()
