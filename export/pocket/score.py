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
from edgegeo.train.data import Drawing, Places, planet_places
from edgegeo.train.losses import unit
from edgegeo.train.talk import Sequences, Talk
from edgegeo.train.trunk import features_of, hidden_states, query_states, use_matmul_attention


def main(folder: Path, cache: Path, n: int) -> None:
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


def _scores(checkpoint: Checkpoint, places: Places, n: int) -> dict[str, dict[str, float]]:
    use_matmul_attention(checkpoint.model)
    talk = Talk(checkpoint.tokenizer, checkpoint.image.tokens, checkpoint.settings.prompts)
    base, adapters = checkpoint.model, checkpoint.path / ADAPTERS
    queries = torch.from_numpy(load_queries(adapters / "retriever-slq"))

    def slq(model: Any, rows: Sequences, features: torch.Tensor | None) -> torch.Tensor:
        return unit(query_states(model, rows.ids, rows.lengths, features, queries).mean(1))

    lora, gps = (_merged(base, adapters / name) for name in ("retriever-lora", "gps-lora"))
    return {
        "base": validate.retrieval(base, talk, places, n) | validate.gps(base, talk, places, n),
        "retriever-lora": validate.retrieval(lora, talk, places, n),
        "retriever-slq": validate.retrieval(base, talk, places, n, slq),
        "gps-lora": validate.gps(gps, talk, places, n),
        "pairs": _pairs(checkpoint, talk, places, n),
    }


def _merged(base: Any, folder: Path) -> Any:
    model = merge_adapter(base, folder).model
    use_matmul_attention(model)
    return model


@torch.no_grad()
def _pairs(checkpoint: Checkpoint, talk: Talk, places: Places, n: int) -> dict[str, float]:
    """Share of right answers to "same place?", half of the pairs being of places drawn at random."""
    rng = np.random.default_rng(0)
    model, tokenizer, settings = checkpoint.model, checkpoint.tokenizer, checkpoint.settings
    yes, no = list(word_ids(settings.yes, tokenizer)), list(word_ids(settings.no, tokenizer))
    right: dict[str, list[float]] = {"image": [], "text": []}
    for start in range(0, n, 50):
        index = np.arange(start, min(start + 50, n))
        same = rng.random(len(index)) < 0.5
        other = np.where(same, index, (index + rng.integers(1, n, len(index))) % n)
        words = [places.words[i] for i in index.tolist()]
        tile = features_of(model, places.pictures("tile", other))
        photo = features_of(model, places.pictures("photo", index))
        for query, seen in (("image", torch.stack([photo, tile], 1).flatten(0, 1)), ("text", tile)):
            rows = talk.pairs(query, words, same, rng, 120)
            last = hidden_states(model, rows.ids, seen)[torch.arange(len(index)), rows.lengths - 2]
            logits = last @ model.get_output_embeddings().weight.T
            margin = torch.logsumexp(logits[:, yes], 1) - torch.logsumexp(logits[:, no], 1)
            right[query] += ((margin > 0).numpy() == same).astype(float).tolist()
    return {"photo_tile_right": float(np.mean(right["image"])), "text_tile_right": float(np.mean(right["text"]))}


def _guessing(planet: Planet, places: Places) -> dict[str, dict[str, float]]:
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

    recalls = [f"{kind}_recall_at_{k}" for kind in ("text", "photo") for k in (1, 5, 10)]
    shares = [f"gps_within_{k}_km" for k in (200, 750, 2500)]
    test, guess = scores["test"], scores["guessing"]
    rows = [f"| {name} | {percent(test[name], *recalls)} |" for name in ("retriever-lora", "retriever-slq", "base")]
    gps = [f"| {name} | {percent(test[name], *shares)} | {test[name]['gps_median_km']:.0f} km |" for name in
           ("gps-lora", "base")]  # fmt: skip
    gps += [f"| {name} | {percent(row, *shares)} | {row['gps_median_km']:.0f} km |" for name, row in guess.items()]
    pairs = test["pairs"]
    card = (Path(__file__).parent / "card.md").read_text(encoding="utf-8")
    filled = {
        "{retrieval}": "\n".join(rows), "{gps}": "\n".join(gps), "{places}": f"{scores['places']:,}",
        "{parameters}": f"{scores['parameters'] / 1e6:.1f} million",
        "{bytes}": f"{sum(scores['weights'].values()) / 1e6:.1f} MB",
        "{photo_pairs}": f"{100 * pairs['photo_tile_right']:.1f} %",
        "{text_pairs}": f"{100 * pairs['text_tile_right']:.1f} %",
    }  # fmt: skip
    for slot, value in filled.items():
        card = card.replace(slot, value)
    return card


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) == 4 else 1000)
