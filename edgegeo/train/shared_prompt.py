"""Candidates of one query read together: the query's part of the prompt once, every candidate behind it.

What the runtime's shared prompt does, with gradients: beside a text of 60 tokens and a dozen candidates of 24, reading
every pair in full takes more than three times as many tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from edgegeo.models.family import Family
from edgegeo.train.adapting import Learner
from edgegeo.train.sequences import Row, collate


def can_share(learner: Learner) -> bool:
    """Whether the decoder reads plain causal sequences, so that a prompt can be cut anywhere, and keeps keys and values
    (gradient checkpointing computes them again instead)."""
    return type(learner.checkpoint.family).hidden is Family.hidden and not learner.checkpointing


def states_behind(learner: Learner, queries: Sequence[Sequence[Row]]) -> Tensor:
    """Last hidden state (Q, K, hidden) of K rows each for Q queries, whose rows differ from their last picture on."""
    from transformers import DynamicCache

    count = len(queries[0])
    cut = [_cut(rows, learner.writer.placeholder) for rows in queries]
    pad, device, family = learner.writer.pad, learner.world.device, learner.checkpoint.family
    first = collate([shared for shared, _ in cut], pad, device)
    rest = collate([row for _, rows in cut for row in rows], pad, device)
    text, cache = family.parts(learner.model).text, DynamicCache()
    inputs = family.embeddings(learner.model, first.ids, learner.seen(first.pictures), None)
    text(inputs_embeds=inputs, past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(count)
    inputs = family.embeddings(learner.model, rest.ids, learner.seen(rest.pictures), None)
    before = first.lengths.repeat_interleave(count)
    steps = torch.arange(rest.ids.shape[1], device=device)
    states = text(
        inputs_embeds=inputs, position_ids=before[:, None] + steps, past_key_values=cache, use_cache=True,
        attention_mask=_mask(before, first.ids.shape[1], len(steps), inputs.dtype),
    ).last_hidden_state  # fmt: skip
    last = states[torch.arange(len(states), device=device), rest.lengths - 1]
    return last.reshape(len(queries), count, -1)


def _cut(rows: Sequence[Row], placeholder: int) -> tuple[Row, list[Row]]:
    """What all rows of a query begin with, and what follows in each; the last picture is never cut."""
    shared = min(_last_picture(row, placeholder) for row in rows)
    while any(row.ids[:shared] != rows[0].ids[:shared] for row in rows):
        shared -= 1
    followers = [Row(row.ids[shared:], row.pictures[-1:]) for row in rows]
    return Row(rows[0].ids[:shared], rows[0].pictures[:-1]), followers


def _last_picture(row: Row, placeholder: int) -> int:
    """Where the first image token of the last picture stands."""
    tokens = sum(part for part in row.pictures[-1].layout if isinstance(part, int))
    return [i for i, token in enumerate(row.ids) if token == placeholder][-tokens]


def _mask(before: Tensor, width: int, length: int, dtype: torch.dtype) -> Tensor:
    """(N, 1, length, width + length), 0 or -inf: all of what precedes without its padding, then causally."""
    padding = torch.arange(width, device=before.device) >= before[:, None]
    future = torch.ones(length, length, dtype=torch.bool, device=before.device).triu(1)
    count = len(before)
    hidden = torch.cat([padding[:, None].expand(count, length, width), future.expand(count, length, length)], dim=2)
    return torch.zeros(hidden.shape, dtype=dtype, device=before.device).masked_fill(hidden, float("-inf"))[:, None]
