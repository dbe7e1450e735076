"""What training is judged by: Recall@k and kilometres on validation places, in torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgegeo.geo import Position, distance_km
from edgegeo.runtime.answer import parse_answer
from edgegeo.train.adapting import Learner
from edgegeo.train.losses import weighted_loss
from edgegeo.train.sequences import Row
from edgegeo.train.sources import Lesson, Lessons, Pairs, Rows

RECALLS = (1, 5, 10)
THRESHOLDS_KM = (25.0, 200.0, 750.0, 2500.0)
Embed = Callable[[Sequence[Row]], Tensor]


@dataclass(frozen=True)
class Embedded:
    """Embeddings of pairs."""

    targets: Tensor
    """(M, D), each target once."""
    rows: Rows
    """(M,) a row of the source that has the target."""
    queries: tuple[Tensor, ...]
    """(N, D) of each kind of query."""


@torch.no_grad()
def embed_pairs(embed: Embed, learner: Learner, source: Pairs, index: Rows) -> Embedded:
    """Every query of `index`, with the first words of each text, and every target once."""
    learner.model.eval()
    found: list[list[Tensor]] = [[] for _ in range(1 + len(source.kinds))]
    firsts = np.sort(np.unique(source.targets[index], return_index=True)[1])
    for start in range(0, len(index), learner.stride):
        pairs = source.pairs(index[start : start + learner.stride], None)
        sides = [[pairs[i - start].target for i in firsts if start <= i < start + len(pairs)]]
        sides += [[pair.queries[kind] for pair in pairs] for kind in range(len(source.kinds))]
        for into, some in zip(found, sides, strict=True):
            if some:
                into.append(embed([learner.writer.side(side) for side in some]))
    learner.model.train()
    targets, *queries = (torch.cat(parts) for parts in found)
    return Embedded(targets, index[firsts], tuple(queries))


def retrieval(embed: Embed, learner: Learner, source: Pairs) -> dict[str, float]:
    """Recall@1/5/10 of each kind of query among all targets, 0 to 1; any target of its group is a hit."""
    found = embed_pairs(embed, learner, source, np.arange(len(source.groups)))
    groups = torch.from_numpy(source.groups).to(found.targets.device)
    theirs = groups[torch.from_numpy(found.rows).to(groups.device)]
    scores: dict[str, float] = {}
    for kind, queries in zip(source.kinds, found.queries, strict=True):
        likeness = queries @ found.targets.T
        own = groups[:, None] == theirs[None]
        best = likeness.masked_fill(~own, float("-inf")).max(1).values
        rank = ((likeness > best[:, None]) & ~own).sum(1)
        scores |= {f"{kind}_recall_at_{k}": float((rank < k).float().mean()) for k in RECALLS}
    return scores


def recall_goal(scores: dict[str, float]) -> float:
    """What validation chooses by: the mean Recall@1 of all kinds of query."""
    found = [value for name, value in scores.items() if name.endswith("recall_at_1")]
    return sum(found) / len(found)


@torch.no_grad()
def answers(
    learner: Learner, source: Lessons, count: int, weight: float, new_tokens: int, written: int
) -> dict[str, float]:
    """Loss a token of the first `count` lessons; of the first `written`, shares within the thresholds and the median
    error (km) of greedy answers, where no answer is a miss."""
    learner.model.eval()
    total = weights = 0.0
    errors: list[float] = []
    for start in range(0, count, learner.stride):
        lessons = source.lessons(np.arange(start, min(start + learner.stride, count)), None)
        rows = [learner.writer.answer(one.picture, one.answer, weight) for one in lessons]
        loss, weighed = answer_loss(learner, rows)
        total, weights = total + float(loss), weights + weighed
        asked = lessons[: max(0, written - start)]
        if asked:
            texts = _greedy(learner, asked, new_tokens)
            errors += [_error_km(text, one.position) for text, one in zip(texts, asked, strict=True)]
    learner.model.train()
    scores = {"loss_a_token": total / weights}
    if not errors:
        return scores
    error = np.array(errors)
    scores |= {f"gps_within_{km:g}_km": float(np.mean(error <= km)) for km in THRESHOLDS_KM}
    finite = error[np.isfinite(error)]
    scores["gps_answered"] = len(finite) / len(error)
    return scores | ({"gps_median_km": float(np.median(finite))} if len(finite) else {})


def answer_loss(learner: Learner, rows: list[Row]) -> tuple[Tensor, float]:
    """Weighted next-token cross-entropy of the rows' answers, summed, and the sum of the weights."""
    states, batch = learner.states(rows)
    asked = torch.nonzero(batch.weights)
    before = states[asked[:, 0], asked[:, 1] - 1]
    logits = learner.checkpoint.family.parts(learner.model).head(before)
    weights = batch.weights[asked[:, 0], asked[:, 1]]
    return weighted_loss(logits, batch.ids[asked[:, 0], asked[:, 1]], weights), float(weights.sum())


def _greedy(learner: Learner, lessons: Sequence[Lesson], new_tokens: int) -> list[str]:
    """Answers by computing the whole row again for each token: slow and short, and the same for every family."""
    writer, family = learner.writer, learner.checkpoint.family
    rows = [writer.question(one.picture) for one in lessons]
    stops, open_rows = set(learner.checkpoint.stop_ids), set(range(len(rows)))
    said: list[list[int]] = [[] for _ in rows]
    for _ in range(new_tokens):
        chosen = sorted(open_rows)
        states, batch = learner.states([Row((*rows[i].ids, *said[i]), rows[i].pictures) for i in chosen])
        last = states[torch.arange(len(chosen), device=states.device), batch.lengths - 1]
        for i, token in zip(chosen, family.parts(learner.model).head(last).argmax(-1).tolist(), strict=True):
            if token in stops or token == writer.placeholder:
                open_rows.discard(i)
            else:
                said[i].append(token)
        if not open_rows:
            break
    return [str(writer.tokenizer.decode(ids, skip_special_tokens=False)) for ids in said]


def _error_km(answer: str, truth: Position) -> float:
    position = parse_answer(answer)
    return float("nan") if position is None else float(distance_km(position.lat, position.lon, truth.lat, truth.lon))
