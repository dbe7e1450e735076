"""Labelled places located once: what fusion and doubt are fitted on and scored by."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgegeo.errors import InputError
from edgegeo.evaluate.scenes import Scene
from edgegeo.progress import Progress, silent
from edgegeo.runtime import Embedder, Gallery, Generator, Model
from edgegeo.runtime.fusion import Clues
from edgegeo.runtime.gallery.exact import exact_search
from edgegeo.runtime.generate import SAMPLING
from edgegeo.runtime.locator import TILES
from edgegeo.runtime.sampling import Decoding
from edgegeo.runtime.sphere import Doubles, between_km, vectors

NONE, OWN, OTHER, GALLERY = "none", "own", "other", "gallery"
"""Which tiles stand beside the candidates: none; the places' tiles; those without the place's own; a user's gallery."""


@dataclass(frozen=True)
class Study:
    """N places."""

    truth: Doubles
    """(N, 2) degrees."""
    positions: Doubles
    """(N, K, 2) degrees of the candidates, NaN where one is no position; K is 0 where the bundle writes none."""
    logprobs: Doubles
    """(N, K)."""
    found: dict[str, tuple[Doubles, Doubles]] = field(default_factory=dict)
    """OWN, OTHER or GALLERY -> tiles (N, M, 2) and their cosines (N, M), best first."""

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def count(self) -> int:
        """Candidates of each place."""
        return int(self.positions.shape[1])

    def clues(self, count: int, tiles: str = NONE) -> Clues:
        """What is known of every place, with its first `count` candidates; 0: none was written."""
        places, scores = self.found[tiles] if tiles != NONE else (np.zeros((len(self), 0, 2)), np.zeros((len(self), 0)))
        if not count:
            return Clues(np.full((len(self), 1, 2), np.nan), np.zeros((len(self), 1)), places, scores)
        return Clues(self.positions[:, :count], self.logprobs[:, :count], places, scores)

    def rows(self, chosen: Any) -> "Study":
        """Some of the places, by a mask or numbers (n,)."""
        found = {kind: (places[chosen], scores[chosen]) for kind, (places, scores) in self.found.items()}
        return Study(self.truth[chosen], self.positions[chosen], self.logprobs[chosen], found)

    def errors(self, points: Doubles) -> Doubles:
        """Kilometres (N,) of unit vectors (N, 3) from the truth."""
        return between_km(points, vectors(self.truth))

    def distances(self, count: int) -> Doubles:
        """Kilometres (N, count) of the candidates; infinite where there is no position."""
        far = between_km(vectors(np.nan_to_num(self.positions[:, :count])), vectors(self.truth)[:, None])
        return np.where(np.isfinite(self.positions[:, :count, 0]), far, np.inf)


def study_scenes(
    model: Model, scenes: Sequence[Scene], count: int = 10, decoding: Decoding = SAMPLING,
    progress: Progress = silent, places: int | None = None,
) -> Study:  # fmt: skip
    """Locate the first `places` (all) of the planet's scenes.

    The tiles of all scenes are the gallery, once with and once without each place's own.
    """
    photos = [scene.photo for scene in scenes[:places]]
    positions, logprobs = written(model, photos, count, decoding, progress)
    truth = np.array([(scene.lat, scene.lon) for scene in scenes], np.float64)
    found = {}
    if model.bundle.manifest.roles.embed is not None and len(scenes) > 1:
        embedder = Embedder(model)
        queries, tiles = embedded(embedder, photos, progress), embedded(embedder, [s.tile for s in scenes], progress)
        found = {OWN: near(queries, tiles, truth), OTHER: near(queries, tiles, truth, without_own=True)}
    return Study(truth[: len(photos)], positions, logprobs, found)


def study_photos(
    model: Model, photos: Sequence[Any], truth: Doubles, gallery: Gallery | None = None, count: int = 10,
    decoding: Decoding = SAMPLING, progress: Progress = silent,
) -> Study:  # fmt: skip
    """Locate photos of known positions (N, 2) by the candidates of the model and, if given, a gallery as it is."""
    if len(photos) != len(truth):
        raise InputError(f"{len(photos)} photos for {len(truth)} positions")
    positions, logprobs = written(model, photos, count, decoding, progress)
    found = {}
    if gallery is not None:
        hits = gallery.search(embedded(Embedder(model), photos, progress), TILES)
        found[GALLERY] = (np.asarray(hits.positions), np.asarray(hits.scores, np.float64))
    return Study(np.asarray(truth, np.float64), positions, logprobs, found)


def written(
    model: Model, photos: Sequence[Any], count: int, decoding: Decoding, progress: Progress
) -> tuple[Doubles, Doubles]:
    """Candidates (N, K, 2) and their log-probabilities (N, K); K is 0 without the role."""
    if model.bundle.manifest.roles.generate is None:
        return np.zeros((len(photos), 0, 2)), np.zeros((len(photos), 0))
    generator = Generator(model)
    positions, logprobs = np.full((len(photos), count, 2), np.nan), np.zeros((len(photos), count))
    for row, photo in enumerate(photos):
        for column, one in enumerate(generator.candidates(photo, count, decoding)):
            logprobs[row, column] = one.logprob
            if one.position is not None:
                positions[row, column] = one.position.lat, one.position.lon
        progress("candidates", row + 1, len(photos))
    return positions, logprobs


def embedded(embedder: Embedder, images: Sequence[Any], progress: Progress, batch: int = 16) -> Any:
    """Unit vectors (N, dim)."""
    out = []
    for start in range(0, len(images), batch):
        out.append(embedder.images(images[start : start + batch]))
        progress("embed", min(start + batch, len(images)), len(images))
    return np.concatenate(out)


def near(queries: Any, tiles: Any, truth: Doubles, without_own: bool = False) -> tuple[Doubles, Doubles]:
    """The best tiles (N, M, 2) of each query and their cosines (N, M); tile i is the place of query i."""
    rows, scores = exact_search(tiles, queries, min(TILES + 1, len(tiles)))
    most = rows.shape[1] - 1
    if without_own:
        others = rows != np.arange(len(rows))[:, None]
        order = np.argsort(~others, axis=1, kind="stable")
        rows, scores = np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
    return truth[rows[:, :most]], np.asarray(scores[:, :most], np.float64)
