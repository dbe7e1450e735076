"""Accuracy beside the speed: every setting is scored once, on the same unseen places, through the runtime."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.bench.cells import Cell
from edgegeo.bench.front import FUSED, GPS, LOCATED, PHOTO, RERANKED, TEXT
from edgegeo.bench.machine import versions
from edgegeo.bundle import Bundle
from edgegeo.errors import InputError
from edgegeo.progress import Progress, silent

SPLIT = "test"
WITHIN_KM = 750.0
Card = dict[str, dict[str, Any]]
"""Metric name -> {"value", "low", "high", "places", "hits"}: a share, its 95 % bootstrap interval, and place by place
who was right (`pack_hits`), where that is known."""
Outcomes = dict[str, NDArray[np.float64]]


class Scorer:
    """Scores the cells of one sweep; what was measured is kept in `folder`/accuracy for next time."""

    def __init__(self, folder: Path, places: int, progress: Progress = silent) -> None:
        self._folder, self._places, self._progress = folder, places, progress
        self._embedded: tuple[str, Any] = ("", None)

    def card(self, cell: Cell, bundle: Bundle) -> Card:
        """Recall@1 of text and photo, GPS within 750 km; measured as the cell truncates, re-ranks and fuses."""
        card = self._whole(bundle)
        if cell.dims:
            card = {**card, **self._kept(bundle, f"{cell.dims}d", lambda: self._truncated(bundle, cell.dims))}
        if cell.job == "rerank":
            card = {**card, **self._kept(bundle, f"rerank{cell.rerank}", lambda: self._reranked(bundle, cell.rerank))}
        if cell.job == "locate" or cell.candidates > 1:
            name = f"{cell.job}-rerank{cell.rerank}-candidates{cell.candidates}"
            card = {**card, **self._kept(bundle, name, lambda: self._located(bundle, cell))}
        return card

    def _whole(self, bundle: Bundle) -> Card:
        """From the bundle's own accuracy card where that was made on the same places."""
        own = bundle.manifest.accuracy
        if own.get("places") == self._places and own.get("split") == SPLIT:
            known = {name: own["metrics"][name] for name in (TEXT, PHOTO, GPS) if name in own["metrics"]}
            parts = ("value", "low", "high")
            return {n: {**{p: one[p] for p in parts}, "places": self._places} for n, one in known.items()}
        return self._kept(bundle, "", lambda: self._evaluated(bundle))

    def _kept(self, bundle: Bundle, what: str, measure: Any) -> Card:
        facts = {"fingerprint": bundle.fingerprint, "places": self._places, "split": SPLIT, "versions": versions()}
        tail = f"-{what}" if what else ""
        name = f"{bundle.manifest.name}-{bundle.fingerprint[:16]}-{self._places}{tail}.json"
        file = self._folder / "accuracy" / name
        if (kept := _read(file)) and {name: kept.get(name) for name in facts} == facts:
            known: Card = kept["metrics"]
            return known
        card = card_of(measure())
        _write(file, json.dumps({**facts, "metrics": card}, indent=1, allow_nan=False))
        return card

    def _evaluated(self, bundle: Bundle) -> Outcomes:
        from edgegeo.evaluate import evaluate

        scores = evaluate(bundle, self._places, ("retrieval", "gps"), SPLIT, progress=self._progress)
        return {name: scores.outcomes[name] for name in (TEXT, PHOTO, GPS) if name in scores.outcomes}

    def _truncated(self, bundle: Bundle, dims: int) -> Outcomes:
        from edgegeo.evaluate.retrieval import Embeddings, retrieval_hits
        from edgegeo.runtime.codes import truncate

        whole = self._embeddings(bundle)
        hits = retrieval_hits(Embeddings(**{name: truncate(rows, dims) for name, rows in vars(whole).items()}))
        return {name: hits[name] for name in (TEXT, PHOTO)}

    def _reranked(self, bundle: Bundle, depth: int) -> Outcomes:
        from edgegeo.evaluate.rerank import rerank_scenes
        from edgegeo.runtime import Reranker

        embeddings = self._embeddings(bundle)
        run = rerank_scenes(Reranker.open(bundle), embeddings, self._scenes(), "photo", depth, self._progress)
        return {RERANKED: run.fused}

    def _located(self, bundle: Bundle, cell: Cell) -> Outcomes:
        """The cell's own way from photo to position, on every place."""
        from edgegeo.geo import distance_km
        from edgegeo.runtime import Gallery, Locator

        gallery = Gallery.open(cell.gallery, bundle=bundle) if cell.job == "locate" else None
        locator = Locator.open(bundle, gallery)
        scenes = self._scenes()
        right = np.zeros(len(scenes))
        for index, scene in enumerate(scenes):
            found = locator.locate(scene.photo, rerank=cell.rerank, candidates=cell.candidates).position
            if found is not None:
                right[index] = float(distance_km(scene.lat, scene.lon, found.lat, found.lon)) <= WITHIN_KM
            self._progress("locate", index + 1, len(scenes))
        return {LOCATED if cell.job == "locate" else FUSED: right}

    def _scenes(self) -> Any:
        from edgegeo.evaluate import planet_scenes

        return planet_scenes(self._places, SPLIT, progress=self._progress)

    def _embeddings(self, bundle: Bundle) -> Any:
        from edgegeo.evaluate.retrieval import embed_scenes
        from edgegeo.runtime import Embedder

        if self._embedded[0] != bundle.fingerprint:
            made = embed_scenes(Embedder.open(bundle), self._scenes(), progress=self._progress)
            self._embedded = (bundle.fingerprint, made)
        return self._embedded[1]


def card_of(outcomes: Outcomes) -> Card:
    """Shares of 0/1 outcomes, one a place, with their intervals."""
    from edgegeo.evaluate.bootstrap import interval

    return {
        name: {**vars(interval(values)), "places": len(values), "hits": pack_hits(values)}
        for name, values in outcomes.items()
    }


def pack_hits(values: NDArray[np.float64]) -> str:
    """0/1 values as hexadecimal digits, four a digit, the first place first."""
    return np.packbits(values > 0.5).tobytes().hex()


def unpack_hits(text: str, places: int) -> NDArray[np.float64]:
    """(places,) of 0 and 1, the inverse of `pack_hits`; InputError for a text of another length."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))
    if not places <= len(bits) < places + 8:
        raise InputError(f"the results hold outcomes of {len(bits)} places instead of {places}; measure again")
    return bits[:places].astype(np.float64)


def _write(file: Path, text: str) -> None:
    draft = file.with_name(file.name + ".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, file)
    except OSError as error:
        raise InputError(f"{file} can't be written ({error.strerror or error}); choose another place with -o") from None


def _read(file: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
