"""The whole way: a photo or a description in, a place out."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgegeo.bundle import Bundle
from edgegeo.errors import InputError
from edgegeo.geo import Position
from edgegeo.runtime.embed import Embedder, normalized
from edgegeo.runtime.gallery import Gallery
from edgegeo.runtime.generate import Generated, Generator
from edgegeo.runtime.image import Source, open_image, pixels
from edgegeo.runtime.model import Model
from edgegeo.runtime.rerank import Reranker, fused, probability
from edgegeo.runtime.tokens import fill
from edgegeo.runtime.trunk import Floats

CONFIDENT = 0.9
"""p(yes) from which the best re-ranked tile outweighs a generated position. Of 600 validation photos of the planet 52 %
reach it when their own tile is in the gallery (and 91 % of those are right), 26 % when it is not
(benchmarks/fit_rerank.py)."""


@dataclass(frozen=True)
class Hit:
    """A tile of the gallery that fits the query."""

    id: str
    position: Position
    score: float
    """Cosine of tile and query."""
    rerank_score: float | None
    """p(yes) for the pair, if it was re-ranked."""


@dataclass(frozen=True)
class Answer:
    """What `Locator.locate` found."""

    position: Position | None
    """The place; None if nothing gave one."""
    source: str
    """Which part decided: "generation", "retrieval" or "none"."""
    radius_km: float | None
    """Median error of generated positions on held-out places (the accuracy card); None for a tile of the gallery."""
    hits: tuple[Hit, ...]
    """Tiles, best first: re-ranked ones before the others."""
    text: str | None
    """What the model wrote; None if it was not asked."""
    generated: Position | None
    """The position in the text."""
    timings_ms: dict[str, float]
    """Wall milliseconds of each stage that ran ("load": components opened for the first time), and "total"."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "position": _plain(self.position),
            "source": self.source,
            "radius_km": self.radius_km,
            "hits": [{**vars(hit), "position": _plain(hit.position)} for hit in self.hits],
            "text": self.text,
            "generated": _plain(self.generated),
            "timings_ms": {stage: round(ms, 3) for stage, ms in self.timings_ms.items()},
        }

    def to_geojson(self) -> dict[str, Any]:
        """An RFC 7946 FeatureCollection: the answer first (if there is one), then the hits by rank."""
        features = []
        if self.position is not None:
            facts = {"role": "answer", "source": self.source, "radius_km": self.radius_km, "text": self.text}
            features.append(_feature(self.position, facts))
        for rank, hit in enumerate(self.hits, start=1):
            facts = {"role": "hit", "rank": rank, "id": hit.id, "score": hit.score, "rerank_score": hit.rerank_score}
            features.append(_feature(hit.position, facts))
        return {"type": "FeatureCollection", "features": features}


class Locator:
    """Embeds, searches, re-ranks and generates with one bundle and, optionally, a gallery.

    Which position is the answer: for a photo the generated one, unless re-ranking ran and gives the best tile
    p(yes) >= CONFIDENT; where nothing was generated, and for a text, the best tile. `Answer.source` says which.
    """

    def __init__(self, model: Model, gallery: Gallery | None = None) -> None:
        roles = model.bundle.manifest.roles
        self.model = model
        self.gallery = gallery
        self.embedder = Embedder(model) if roles.embed is not None else None
        self.reranker = Reranker(model) if roles.rerank is not None else None
        self.generator = Generator(model) if roles.generate is not None else None

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle | Model,
        gallery: str | Path | Gallery | None = None,
        threads: int | None = None,
        provider: str = "cpu",
    ) -> "Locator":
        """Open a bundle and a gallery made by it; BundleError, GalleryError or DeviceError."""
        model = Model.open(bundle, threads, provider)
        if gallery is not None and not isinstance(gallery, Gallery):
            gallery = Gallery.open(gallery, bundle=model.bundle)
        return cls(model, gallery)

    def locate(
        self,
        photo: Source | None = None,
        text: str | None = None,
        k: int = 10,
        rerank: int = 0,
        generate: bool = True,
    ) -> Answer:
        """Find the place of a photo, a description, or both (their embeddings are averaged).

        `k` tiles are returned of the gallery; the best `rerank` of the search are looked at again as pairs (0: none),
        with the photo if there is one; `generate=False` skips the generated answer. InputError for an unusable query.
        """
        generate = generate and photo is not None and self.generator is not None
        self._check(photo, text, k, rerank, generate)
        clock = _Clock()
        unopened = self.model.unopened(self._components(photo is not None, rerank > 0, generate))
        if unopened:
            with clock.stage("load"):
                self.model.load(unopened)
        vision = _Vision(self.model, clock, photo)
        hits: list[Hit] = []
        if self.gallery is not None:
            hits = self._retrieve(self.gallery, vision, text, max(k, rerank), clock)
            if rerank:
                hits = self._rerank(self.gallery, vision, text, hits, rerank, clock)
        written: Generated | None = None
        if generate and self.generator is not None:
            features = vision.features(self.generator.role.vision)
            with clock.stage("generate"):
                written = self.generator.features(features)[0]
        position, source = _decide(hits, written)
        radius = _radius_km(self.model.bundle) if source == "generation" else None
        return Answer(
            position,
            source,
            radius,
            tuple(hits[:k]),
            written.text if written else None,
            written.position if written else None,
            clock.finished(),
        )

    def _components(self, photo: bool, rerank: bool, generate: bool) -> list[str]:
        """Components that a query needs, so that opening them is told apart from running them."""
        named: list[str] = []
        if self.gallery is not None and self.embedder is not None:
            named += [self.embedder.role.trunk] + [self.embedder.role.vision] * photo
        if rerank and self.reranker is not None:
            named += [self.reranker.role.trunk, self.reranker.role.vision]
        if generate and self.generator is not None:
            named += [self.generator.role.vision, self.generator.role.trunk, self.generator.role.head]
        return named

    def _check(self, photo: Source | None, text: str | None, k: int, rerank: int, generate: bool) -> None:
        if photo is None and text is None:
            raise InputError("nothing to locate: give a photo, a text, or both")
        if k < 1 or rerank < 0:
            raise InputError(f"k must be at least 1 and rerank at least 0, got k={k} rerank={rerank}")
        if self.gallery is None and rerank:
            raise InputError("re-ranking needs a gallery; build one with: edgegeo index build")
        if self.gallery is None and not generate:
            what = "a text is located by search" if photo is None else "without generation a photo is located by search"
            raise InputError(f"{what}, which needs a gallery; build one with: edgegeo index build")

    def _retrieve(self, gallery: Gallery, vision: "_Vision", text: str | None, k: int, clock: "_Clock") -> list[Hit]:
        embedder = self.embedder or Embedder(self.model)  # without the role, its own error says so
        vectors: list[Floats] = []
        if text is not None:
            with clock.stage("embed"):
                vectors.append(embedder.texts([text]))
        if vision.given:
            features = vision.features(embedder.role.vision)
            with clock.stage("embed"):
                vectors.append(embedder.features(features))
        with clock.stage("search"):
            query = vectors[0] if len(vectors) == 1 else normalized(np.asarray(sum(vectors), np.float32))
            found = gallery.search(query, k)
        return [
            Hit(id, Position(float(place[0]), float(place[1])), float(score), None)
            for id, place, score in zip(found.ids[0], found.positions[0], found.scores[0], strict=True)
        ]

    def _rerank(
        self, gallery: Gallery, vision: "_Vision", text: str | None, hits: list[Hit], count: int, clock: "_Clock"
    ) -> list[Hit]:
        reranker = self.reranker or Reranker(self.model)
        role = reranker.role
        if vision.given:
            pieces, pictures = fill(role.image_prompt), [vision.features(role.vision)]
        else:
            pieces, pictures = reranker.query(text or "")
        with clock.stage("rerank"):
            rows = [gallery.row(hit.id) for hit in hits[:count]]
            tiles = self.model.prepare([gallery.thumbnail(row) for row in rows if row is not None])
            margins = reranker.features(pieces, pictures, self.model.features(role.vision, tiles))
        scores = probability(margins)
        both = fused(np.array([hit.score for hit in hits[:count]]), margins)
        order = sorted(range(len(scores)), key=lambda i: (-both[i], i))
        looked_at = [Hit(hits[i].id, hits[i].position, hits[i].score, float(scores[i])) for i in order]
        return looked_at + hits[count:]


@dataclass
class _Clock:
    """Milliseconds by stage."""

    begun: float = field(default_factory=time.perf_counter)
    spent: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent[name] = self.spent.get(name, 0.0) + (time.perf_counter() - start) * 1e3

    def finished(self) -> dict[str, float]:
        return {**self.spent, "total": (time.perf_counter() - self.begun) * 1e3}


class _Vision:
    """The photo's image tokens, computed once for every role that shares a vision tower."""

    def __init__(self, model: Model, clock: _Clock, photo: Source | None) -> None:
        self.given = photo is not None
        self._model = model
        self._clock = clock
        self._done: dict[str, Floats] = {}
        if photo is not None:
            with clock.stage("decode"):
                image = open_image(photo)
            with clock.stage("preprocess"):
                self._pixels = pixels(image, model.bundle.manifest.image)[None]

    def features(self, component: str) -> Floats:
        if component not in self._done:
            with self._clock.stage("vision"):
                self._done[component] = self._model.features(component, self._pixels)
        return self._done[component]


def _decide(hits: list[Hit], written: Generated | None) -> tuple[Position | None, str]:
    best = hits[0] if hits else None
    confident = best is not None and best.rerank_score is not None and best.rerank_score >= CONFIDENT
    if written is not None and written.position is not None and not confident:
        return written.position, "generation"
    if best is not None:
        return best.position, "retrieval"
    return None, "none"


def _radius_km(bundle: Bundle) -> float | None:
    metric: Any = bundle.manifest.accuracy
    for key in ("metrics", "gps_median_km", "value"):
        metric = metric.get(key) if isinstance(metric, dict) else None
    return float(metric) if isinstance(metric, (int, float)) else None


def _plain(position: Position | None) -> dict[str, float] | None:
    return None if position is None else {"lat": position.lat, "lon": position.lon}


def _feature(position: Position, facts: dict[str, Any]) -> dict[str, Any]:
    place = {"type": "Point", "coordinates": [position.lon, position.lat]}
    return {"type": "Feature", "geometry": place, "properties": facts}
