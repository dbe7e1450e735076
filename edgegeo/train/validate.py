"""What training is judged by: Recall@k and kilometres on validation places, in torch."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgegeo.geo import distance_km
from edgegeo.runtime.answer import parse_answer
from edgegeo.train.data import Places, Words
from edgegeo.train.losses import last_positions, unit
from edgegeo.train.talk import Sequences, Talk
from edgegeo.train.trunk import features_of, hidden_states

STRIDE = 100
RECALLS = (1, 5, 10)
Embed = Callable[[Any, Sequences, Tensor | None], Tensor]


def eos_embedding(model: Any, rows: Sequences, features: Tensor | None) -> Tensor:
    """Unit embeddings (N, hidden) at the last non-pad position."""
    return unit(last_positions(hidden_states(model, rows.ids, features), rows.lengths))


@torch.no_grad()
def retrieval(model: Any, talk: Talk, places: Places, n: int, embed: Embed = eos_embedding) -> dict[str, float]:
    """Recall@1/5/10 of text and photo queries among the tiles of the same n places, 0 to 1."""
    model.eval()
    found: dict[str, list[Tensor]] = {"text": [], "photo": [], "tile": []}
    for start in range(0, n, STRIDE):
        index = np.arange(start, min(start + STRIDE, n))
        image = talk.padded([(talk.image, 0)] * len(index), len(talk.image))
        for kind in ("photo", "tile"):
            found[kind].append(embed(model, image, features_of(model, places.pictures(kind, index))))
        texts = [talk.prompt("embed_text", texts=[talk.ids(places.words[i].captions[0])]) for i in index.tolist()]
        found["text"].append(embed(model, talk.padded([(t, 0) for t in texts], 80), None))
    tiles = torch.cat(found["tile"])
    scores: dict[str, float] = {}
    for kind in ("text", "photo"):
        similarity = torch.cat(found[kind]) @ tiles.T
        rank = (similarity > similarity.diagonal()[:, None]).sum(1)
        scores |= {f"{kind}_recall_at_{k}": float((rank < k).float().mean()) for k in RECALLS}
    model.train()
    return scores


@torch.no_grad()
def gps(model: Any, talk: Talk, places: Places, n: int, new_tokens: int = 22) -> dict[str, float]:
    """Shares within the thresholds and the median error (km) of greedy answers to n photos; no answer is a miss."""
    model.eval()
    errors: list[float] = []
    for start in range(0, n, STRIDE):
        index = np.arange(start, min(start + STRIDE, n))
        answers = _greedy(model, talk, features_of(model, places.pictures("photo", index)), new_tokens)
        errors += [_error_km(answer, places.words[i]) for i, answer in zip(index.tolist(), answers, strict=True)]
    model.train()
    error = np.array(errors)
    scores = {f"gps_within_{k:g}_km": float(np.mean(error <= k)) for k in (25.0, 200.0, 750.0, 2500.0)}
    finite = error[np.isfinite(error)]
    return scores | {
        "gps_median_km": float(np.median(finite)) if finite.size else float("nan"),
        "gps_answered": float(np.mean(np.isfinite(error))),
    }


def _greedy(model: Any, talk: Talk, features: Tensor, new_tokens: int) -> list[str]:
    ids = torch.tensor([talk.where] * len(features))
    width = ids.shape[1] + new_tokens
    for _ in range(new_tokens):
        # Padded to one width: every new shape would cost a compilation.
        padded = torch.nn.functional.pad(ids, (0, width - ids.shape[1]), value=talk.pad)
        hidden = hidden_states(model, padded, features)[:, ids.shape[1] - 1]
        ids = torch.cat([ids, model.lm_head(hidden).argmax(-1, keepdim=True)], dim=1)
    return [_until(row, talk.end[0], talk) for row in ids[:, len(talk.where) :].tolist()]


def _until(row: Sequence[int], end: int, talk: Talk) -> str:
    written = row[: row.index(end)] if end in row else row
    return str(talk.tokenizer.decode(list(written), skip_special_tokens=False))


def _error_km(answer: str, words: Words) -> float:
    position = parse_answer(answer)
    return float("nan") if position is None else float(distance_km(position.lat, position.lon, words.lat, words.lon))
