"""Losses of every training verb, on plain tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(queries: Tensor, keys: Tensor, scale: Tensor | float, symmetric: bool = True) -> Tensor:
    """InfoNCE with in-batch negatives: row i of `queries` (N, D) belongs to row i of `keys` (N, D).

    Rows are L2-normalised; `scale` is one over the temperature. Symmetric averages both directions (SLQ), one
    direction asks queries only (NGCG-MLLM's code).
    """
    logits = scale * queries @ keys.T
    target = torch.arange(len(logits), device=logits.device)
    forward = F.cross_entropy(logits, target)
    return (forward + F.cross_entropy(logits.T, target)) / 2 if symmetric else forward


def unit(hidden: Tensor) -> Tensor:
    """Rows of length one, float32."""
    return F.normalize(hidden.float(), dim=-1)


def last_positions(hidden: Tensor, lengths: Tensor) -> Tensor:
    """EOS pooling: the last non-pad state (N, D) of right-padded sequences (N, T, D)."""
    return hidden[torch.arange(len(hidden)), lengths - 1]


def answer_loss(hidden: Tensor, labels: Tensor, head: Tensor, start: int = 1) -> Tensor:
    """Next-token cross-entropy of `labels` (N, T), -100 where nothing is asked; hidden (N, T, D), head (V, D).

    Nothing before position `start` is asked. The window keeps its shape from step to step, because on a CPU every
    new matrix shape costs a compilation.
    """
    logits = hidden[:, start - 1 : -1] @ head.T
    return F.cross_entropy(logits.flatten(0, 1).float(), labels[:, start:].flatten(), ignore_index=-100)
