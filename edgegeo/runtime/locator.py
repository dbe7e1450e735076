"""The whole way: a photo or a description in, a place out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgegeo.bundle import Bundle
from edgegeo.errors import InputError
from edgegeo.geo import Position
from edgegeo.runtime.cue import has_cue
from edgegeo.runtime.deciding import Verdict, decide
from edgegeo.runtime.decoding import Listener
from edgegeo.runtime.doubt import LEVELS, check_confidence, open_fit
from edgegeo.runtime.embed import Embedder
from edgegeo.runtime.fusion import Clues, Prior
from edgegeo.runtime.gallery.backend import GalleryBackend, open_gallery
from edgegeo.runtime.generate import SAMPLING, Generated, Generator
from edgegeo.runtime.image import Source
from edgegeo.runtime.model import Model
from edgegeo.runtime.outcome import Answer, Hit, hits_of
from edgegeo.runtime.pictures import Picture
from edgegeo.runtime.question import Question, query_vector
from edgegeo.runtime.rerank import Reranker
from edgegeo.runtime.sampling import Decoding
from edgegeo.runtime.second_look import Reordered, Reranking, SecondLook
from edgegeo.runtime.stages import Clock, Vision
from edgegeo.runtime.tile_features import TileFeatures
from edgegeo.runtime.weighing import TEXT_SHARE

TILES = 20
"""Hits of the search that are weighed as evidence, whatever number is asked for."""
NO_CUE = "the picture shows nothing to tell a place by"
BLANK = "the model says the same to pictures that show nothing"


class Locator:
    """Embeds, searches, re-ranks and generates with one bundle and, optionally, a gallery.

    Which position is the answer (runtime/deciding.py): for a photo the fused candidates, weighed by the tiles of the
    gallery, unless the bundle's fit finds the best tile the better guess, or re-ranking is sure of the first one; where
    nothing was generated, and for a text, the best tile. A prior weighs and moves them.
    """

    def __init__(self, model: Model, gallery: GalleryBackend | None = None, kept: TileFeatures | None = None) -> None:
        """kept: image tokens of tiles that were looked at before, where another Locator of this model has some."""
        roles = model.bundle.manifest.roles
        self.model = model
        self.gallery = gallery
        self.fit = open_fit(model.bundle)
        self.embedder = Embedder(model) if roles.embed is not None else None
        self.reranker = Reranker(model) if roles.rerank is not None else None
        self.generator = Generator(model) if roles.generate is not None else None
        if kept is None and self.reranker is not None:
            kept = TileFeatures(model, self.reranker.role.vision)
        self.kept = kept
        """Tiles that re-ranking looked at: the tower of one that comes again does not run again."""

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle | Model,
        gallery: str | Path | GalleryBackend | None = None,
        threads: int | None = None,
        provider: str = "cpu",
    ) -> "Locator":
        """Open a bundle and a gallery made by it; BundleError, GalleryError or DeviceError."""
        model = Model.open(bundle, threads, provider)
        if isinstance(gallery, (str, Path)):
            gallery = open_gallery(gallery, model.bundle)
        return cls(model, gallery)

    def locate(
        self,
        photo: Source | None = None,
        text: str | None = None,
        k: int = 10,
        rerank: int | Reranking = 0,
        generate: bool = True,
        candidates: int = 1,
        decoding: Decoding | None = None,
        listener: Listener | None = None,
        prior: Prior | None = None,
        min_confidence: float = 0.0,
        picture: Picture | None = None,
        also: Sequence[Source | Picture] = (),
        avoid: Sequence[str] = (),
    ) -> Answer:
        """Find the place of a photo, a description, or both; `also` are more photos of the same place, or pictures
        prepared of them.

        Embeddings are averaged (runtime/question.py); `avoid` says what the place is not. `k` tiles are returned of
        the gallery; the best `rerank` of the search are looked at again as pairs (0: none; runtime/second_look.py).
        `generate=False` skips the generated answer; otherwise `candidates` of them are written for each photo as
        `decoding` says, and all are fused. `prior` is a place known from elsewhere; below `min_confidence` the position
        is withheld (InputError where the bundle can't tell). `picture` is the first photo prepared already, where
        another thread has done so. InputError for an unusable query.
        """
        check_confidence(min_confidence)
        asked = Question((*(() if photo is None else (photo,)), *also), text, tuple(avoid))
        how = rerank if isinstance(rerank, Reranking) else Reranking(rerank)
        generate = generate and bool(asked.photos) and self.generator is not None
        self._check(asked, k, how, generate)
        clock = Clock()
        unopened = self.model.unopened(self._components(bool(asked.photos), how.count > 0, generate))
        if unopened:
            with clock.stage("load"):
                self.model.load(unopened)
        vision = Vision(self.model, clock, asked.photos, picture)
        found = Reordered([], False, False)
        if self.gallery is not None:
            found = Reordered(
                self._retrieve(self.gallery, vision, asked, max(k, how.count, TILES), clock), False, False
            )
            if how.count:
                found = self._rerank(self.gallery, vision, asked, found.hits, how, k, clock)
        drawn = self._written(self.generator, vision, candidates, decoding, listener, clock) if generate else []
        # What the fit knows it knows of one photo and of tiles as the search has them.
        known = len(asked.photos) == 1 and text is None and not avoid and not found.looked
        verdict = decide(_clues(found.hits[: max(TILES, how.count)], drawn), self.fit, prior, found.sure, known)
        return self._answered(verdict, vision, found.hits[:k], drawn, min_confidence, clock)

    def _written(
        self, generator: Generator | None, vision: Vision, candidates: int, decoding: Decoding | None,
        listener: Listener | None, clock: Clock,
    ) -> list[Generated]:  # fmt: skip
        """`candidates` answers for each photo."""
        if generator is None:
            return []
        features = vision.features(generator.role.vision)
        with clock.stage("generate"):
            if candidates == 1:
                return generator.features(features, decoding, listener)
            drawn: list[Generated] = []
            for number, one in enumerate(features):
                drawn += generator.candidates_of(one, candidates, decoding or SAMPLING, None if number else listener)
            return drawn

    def _answered(
        self, verdict: Verdict, vision: Vision, hits: list[Hit], drawn: list[Generated], least: float, clock: Clock
    ) -> Answer:  # fmt: skip
        """The verdict in the form that callers know, withheld where it is too doubtful."""
        written = max(drawn, key=lambda one: (one.position is not None, one.logprob), default=None)
        warnings = self._warnings(vision, written)
        # What the fit knows it knows of pictures that show something.
        confidence = 0.0 if warnings and verdict.calibration == "fit" else verdict.confidence
        position, abstained = _withheld(verdict.position, confidence, least)
        radii = verdict.radii_km if confidence == verdict.confidence else None
        return Answer(
            position=position,
            source="none" if abstained else verdict.evidence.decided,
            radius_km=verdict.radius_km if radii else None,
            hits=tuple(hits),
            text=written.text if written else None,
            generated=written.position if written else None,
            timings_ms=clock.finished(),
            candidates=tuple(drawn),
            confidence=confidence,
            radii_km=dict(zip(LEVELS, radii, strict=True)) if radii else {},
            calibration=verdict.calibration,
            evidence=verdict.evidence,
            warnings=warnings,
            abstained=abstained,
        )

    def _warnings(self, vision: Vision, written: Generated | None) -> tuple[str, ...]:
        """Reasons to doubt the picture itself, as far as the bundle's fit knows them."""
        if self.fit is None or not vision.given:
            return ()
        out = []
        cue = self.fit.cue
        if cue is not None and vision.opened and not any(has_cue(image, cue) for image in vision.images):
            out.append(NO_CUE)
        if written is not None and written.position is not None and self.fit.blank(written.position):
            out.append(BLANK)
        return tuple(out)

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

    def _check(self, asked: Question, k: int, how: Reranking, generate: bool) -> None:
        if k < 1:
            raise InputError(f"k must be at least 1, got {k}")
        if self.gallery is None and how.count:
            raise InputError("re-ranking needs a gallery; build one with: edgegeo index build")
        if self.gallery is None and not generate:
            what = "without generation a photo is located by search" if asked.photos else "a text is located by search"
            raise InputError(f"{what}, which needs a gallery; build one with: edgegeo index build")
        if self.gallery is None and asked.avoid:
            raise InputError("what to avoid guides the search, which needs a gallery; build one, or leave it out")

    def _retrieve(self, gallery: GalleryBackend, vision: Vision, asked: Question, k: int, clock: Clock) -> list[Hit]:
        embedder = self.embedder or Embedder(self.model)  # without the role, its own error says so
        features = vision.features(embedder.role.vision) if vision.given else []
        share = self.fit.text_share if self.fit is not None else TEXT_SHARE
        with clock.stage("embed"):
            query = query_vector(embedder, [[one] for one in features], asked.text, asked.avoid, share)
        with clock.stage("search"):
            return hits_of(gallery.search(query, k))

    def _rerank(
        self, gallery: GalleryBackend, vision: Vision, asked: Question, hits: list[Hit], how: Reranking, top: int,
        clock: Clock,
    ) -> Reordered:  # fmt: skip
        reranker = self.reranker or Reranker(self.model)
        kept = self.kept if self.kept is not None else TileFeatures(self.model, reranker.role.vision)
        photos = vision.features(reranker.role.vision) if vision.given else []
        with clock.stage("rerank"):
            return SecondLook(reranker, photos, asked.text, self.fit, how).reorder(hits, gallery, kept, top)


def _clues(hits: list[Hit], drawn: list[Generated]) -> Clues:
    """One picture's evidence as arrays; the greedy answer is the first candidate."""
    nowhere = (np.nan, np.nan)
    written = [(one.position.lat, one.position.lon) if one.position else nowhere for one in drawn]
    return Clues(
        np.array(written, np.float64).reshape(1, -1, 2) if written else np.full((1, 1, 2), np.nan),
        np.array([[one.logprob for one in drawn] or [0.0]], np.float64),
        np.array([(hit.position.lat, hit.position.lon) for hit in hits], np.float64).reshape(1, -1, 2),
        np.array([[hit.score for hit in hits]], np.float64).reshape(1, -1),
    )


def _withheld(position: Position | None, confidence: float | None, least: float) -> tuple[Position | None, bool]:
    """(position, whether it was withheld)."""
    if position is None or least == 0:
        return position, False
    if confidence is None:
        raise InputError(
            "this answer has no confidence to compare with the smallest one asked for: the bundle was not fitted for "
            "such a question; run: edgegeo fit, or leave the smallest confidence out"
        )
    return (None, True) if confidence < least else (position, False)
