"""Scores a pocket checkpoint on unseen test places in plain torch, and writes its model card from the scores.

Usage: python export/pocket/score.py FOLDER CACHE [PLACES]
Writes FOLDER/scores.json and FOLDER/README.md (from card.md beside this file).
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgegeo.geo import GPS_THRESHOLDS_KM, distance_km
from edgegeo.models.adapters import load_queries, merge_adapter
from edgegeo.models.checkpoint import ADAPTERS, Checkpoint, load_checkpoint
from edgegeo.models.prompts import word_ids
from edgegeo.planet import Planet
from edgegeo.train import validate
from edgegeo.train.adapting import Learner
from edgegeo.train.data import Drawing, PlanetPlaces, planet_places
from edgegeo.train.parallel import World
from edgegeo.train.retriever import Retriever
from edgegeo.train.sequences import Row, Writer
from edgegeo.train.settings import RetrieverSettings
from edgegeo.train.sources import PlanetSource
from edgegeo.train.talk import Talk

CHOICE = {"embed": "retriever-lora", "rerank": "reranker-lora", "generate": "gps-lora"}
"""The adapters that the packaged model uses."""


def main(folder: Path, cache: Path, n: int) -> None:
    settings = folder / "edgegeo_model.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"adapters": CHOICE}, indent=2) + "\n")
    checkpoint = load_checkpoint(folder)
    seed = checkpoint.settings.planet_seed
    assert seed is not None, "only a checkpoint of the planet can be scored here"
    scores: dict[str, Any] = {"places": n, "weights": {}}
    places = planet_places(Drawing(cache, "test", n, checkpoint.image, seed))
    scores["test"] = _scores(checkpoint, places, n)
    scores["guessing"] = _guessing(Planet(seed), places)
    files = sorted(folder.rglob("*.safetensors"))
    scores["weights"] = {str(file.relative_to(folder)): file.stat().st_size for file in files}
    scores["parameters"] = sum(p.numel() for p in checkpoint.model.parameters())
    (folder / "scores.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_card(scores), encoding="utf-8")
    print(json.dumps(scores, indent=1))


def _scores(checkpoint: Checkpoint, places: PlanetPlaces, n: int) -> dict[str, dict[str, float]]:
    source, adapters = PlanetSource(places, checkpoint.image, checkpoint.settings.planet_seed or 0), ADAPTERS
    base = _learner(checkpoint, checkpoint.model)
    lora, judge, gps = (_learner(checkpoint, merge_adapter(checkpoint, checkpoint.path / adapters / name).model)
                        for name in (CHOICE["embed"], CHOICE["rerank"], CHOICE["generate"]))  # fmt: skip
    queries = torch.from_numpy(load_queries(checkpoint.path / adapters / "retriever-slq"))
    return {
        "base": _retrieval(base, source) | _positions(base, source, n),
        "retriever-lora": _retrieval(lora, source),
        "retriever-slq": _retrieval(base, source, queries),
        "gps-lora": _positions(gps, source, n),
        "base, pairs": _pairs(base, places, n),
        "reranker-lora, pairs": _pairs(judge, places, n),
    }


def _learner(checkpoint: Checkpoint, model: Any) -> Learner:
    return Learner(checkpoint, model, Writer(checkpoint), World())


def _retrieval(learner: Learner, source: PlanetSource, queries: torch.Tensor | None = None) -> dict[str, float]:
    retriever = Retriever(learner, RetrieverSettings(Path(), method="lora" if queries is None else "slq"))
    if queries is not None:
        retriever.queries = torch.nn.Parameter(queries)
    return validate.retrieval(retriever.embed, learner, source)


def _positions(learner: Learner, source: PlanetSource, n: int) -> dict[str, float]:
    return validate.answers(learner, source, n, 1.0, 24, n)


@torch.no_grad()
def _pairs(learner: Learner, places: PlanetPlaces, n: int) -> dict[str, float]:
    """Share of right answers to "same place?", half of the pairs being of places drawn at random."""
    rng, checkpoint = np.random.default_rng(0), learner.checkpoint
    talk = Talk(checkpoint.tokenizer, checkpoint.image, checkpoint.settings.prompts)
    source = PlanetSource(places, checkpoint.image, checkpoint.settings.planet_seed or 0)
    words_of = (checkpoint.settings.yes, checkpoint.settings.no)
    yes, no = (list(word_ids(words, checkpoint.tokenizer)) for words in words_of)
    head = checkpoint.family.parts(learner.model).head
    right: dict[str, list[float]] = {"image": [], "text": []}
    for start in range(0, n, 50):
        index = np.arange(start, min(start + 50, n))
        same = rng.random(len(index)) < 0.5
        other = np.where(same, index, (index + rng.integers(1, n, len(index))) % n)
        words = [places.words[i] for i in index.tolist()]
        tiles, pairs = [pair.target for pair in source.pairs(other, None)], source.pairs(index, None)
        for query in right:
            asked = talk.pairs(query, words, same, rng, 120)
            # The answer is the last token; what comes before it is the question.
            rows = []
            for row, (pair, tile) in enumerate(zip(pairs, tiles, strict=True)):
                shown = (pair.queries[1], tile) if query == "image" else (tile,)
                rows.append(Row(tuple(asked.ids[row, : asked.lengths[row] - 1].tolist()), shown))
            states, batch = learner.states(rows)
            logits = head(states[torch.arange(len(rows)), batch.lengths - 1])
            margin = torch.logsumexp(logits[:, yes], 1) - torch.logsumexp(logits[:, no], 1)
            right[query] += ((margin > 0).numpy() == same).astype(float).tolist()
    return {"photo_tile_right": float(np.mean(right["image"])), "text_tile_right": float(np.mean(right["text"]))}


def _guessing(planet: Planet, places: PlanetPlaces) -> dict[str, dict[str, float]]:
    """What two kinds of guess score on the same places: a random land point, and the best single point."""
    land = planet.coordinates("train", 4000)
    true = np.array([(one.lat, one.lon) for one in places.words])
    drawn = np.random.default_rng(0).permutation(land)[: len(true)]
    spread = distance_km(land[:1000, None, 0], land[:1000, None, 1], land[None, 1000:, 0], land[None, 1000:, 1])
    best = land[int(np.argmin(np.median(spread, axis=1)))]
    return {
        "random land point": _shares(distance_km(true[:, 0], true[:, 1], drawn[:, 0], drawn[:, 1])),
        "best constant (by median)": _shares(distance_km(true[:, 0], true[:, 1], best[0], best[1])),
    }


def _shares(km: Any) -> dict[str, float]:
    shares = {f"gps_within_{k:g}_km": float(np.mean(km <= k)) for k in GPS_THRESHOLDS_KM}
    return shares | {"gps_median_km": float(np.median(km))}


def _card(scores: dict[str, Any]) -> str:
    def percent(row: dict[str, float], *keys: str) -> str:
        return " | ".join(f"{100 * row[key]:.1f} %" for key in keys)

    def median(row: dict[str, float]) -> str:
        return f"{row['gps_median_km']:.0f} km" if "gps_median_km" in row else "no answers"

    recalls = [f"{kind}_recall_at_{k}" for kind in ("text", "photo") for k in (1, 5, 10)]
    shares = [f"gps_within_{k}_km" for k in (200, 750, 2500)]
    test, guess = scores["test"], scores["guessing"]
    rows = [f"| {name} | {percent(test[name], *recalls)} |" for name in ("retriever-lora", "retriever-slq", "base")]
    judged = {name: test[name] for name in ("gps-lora", "base")} | guess
    gps = [f"| {name} | {percent(row, *shares)} | {median(row)} |" for name, row in judged.items()]
    answered = [
        f"| {name} | {percent(test[f'{name}, pairs'], 'text_tile_right', 'photo_tile_right')} |"
        for name in ("reranker-lora", "base")
    ]
    card = (Path(__file__).parent / "card.md").read_text(encoding="utf-8")
    filled = {
        "{retrieval}": "\n".join(rows), "{gps}": "\n".join(gps), "{places}": f"{scores['places']:,}",
        "{parameters}": f"{scores['parameters'] / 1e6:.1f} million",
        "{bytes}": f"{sum(scores['weights'].values()) / 1e6:.1f} MB",
        "{pairs}": "\n".join(answered),
    }  # fmt: skip
    for slot, value in filled.items():
        card = card.replace(slot, value)
    return card


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) == 4 else 1000)
