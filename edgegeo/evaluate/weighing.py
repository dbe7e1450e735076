"""How the stages of a search are weighed, learned from queries whose tile is known.

Temperature and weight are those under which the right tile of each list is most likely: a conditional logit over the
candidates (McFadden 1974), with a cosine and a log-odds for each. The second look is believed only if it makes lists
more likely that it was not fitted on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import InputError
from edgegeo.evaluate.doubt import FOLDS, folds
from edgegeo.evaluate.logistic import logistic
from edgegeo.evaluate.rerank import Looked, compare, look
from edgegeo.evaluate.retrieval import embed_scenes
from edgegeo.evaluate.scenes import Scene
from edgegeo.geo import distance_km
from edgegeo.progress import Progress, silent
from edgegeo.runtime import Embedder, Gallery, Model, Reranker
from edgegeo.runtime.fusion import Linear
from edgegeo.runtime.sphere import Doubles
from edgegeo.runtime.tile_features import TileFeatures
from edgegeo.runtime.weighing import QUERIES, TEXT_SHARE, Weighing, doubts

LEAST_LISTS = 40
"""Fewer lists with the right tile among them say nothing about two numbers."""
CANDIDATES = 20
"""Tiles of the search that are looked at for each query."""
OWN_KM = 25.0
"""A photo further from every tile than this has no tile of its own."""
CUT = (0.5, 99.5)
"""Percentiles of the log-odds between which they count."""
_RIDGE = 1e-3
_STEPS = 50


@dataclass(frozen=True)
class Weighed:
    """A weighing, and what it does on lists that it was not fitted on."""

    weighing: Weighing
    lists: int
    before: float
    """Recall@1 of the first stage, of lists with the right tile among them."""
    after: float
    """The same with the second look, each list weighed by a fit without it."""


@dataclass(frozen=True)
class SearchFit:
    """Everything about a search that is fitted."""

    weighed: dict[str, Weighed]
    """By QUERIES; a kind whose own tile is hardly ever among the candidates is absent, and so are all without the
    role."""
    text_share: float


def fit_search(model: Model, scenes: Sequence[Scene], places: int, progress: Progress = silent) -> SearchFit:
    """From the texts and photos of the first `places` scenes, in a gallery of all their tiles."""
    if model.bundle.manifest.roles.embed is None or len(scenes) <= CANDIDATES:
        return SearchFit({}, TEXT_SHARE)
    embedded = embed_scenes(Embedder(model), scenes, progress=progress)
    asked = replace(embedded, texts=embedded.texts[:places], photos=embedded.photos[:places])
    tiles = embedded.tiles.astype(np.float64)
    share = fit_text_share(asked.texts @ tiles.T, asked.photos @ tiles.T)
    weighed = {}
    if model.bundle.manifest.roles.rerank is not None:
        for query in QUERIES:
            looked = look(Reranker(model), asked, scenes, query, CANDIDATES, progress)
            if looked.right.any(axis=1).sum() >= LEAST_LISTS:
                one = fit_weighing(looked)
                if model.bundle.manifest.roles.rerank.pair is not None:
                    pairs = compare(Reranker(model), asked, scenes, query, looked, one.weighing, progress)
                    one = replace(one, weighing=replace(one.weighing, pair_weight=fit_pair_weight(*pairs)))
                weighed[query] = one
    return SearchFit(weighed, share)


def fit_in_gallery(
    model: Model, photos: Sequence[Any], truth: Doubles, gallery: Gallery, progress: Progress = silent
) -> SearchFit:
    """From photos of known positions (N, 2) and a gallery as it is: the tile nearest to a photo is its own."""
    if model.bundle.manifest.roles.rerank is None or len(gallery) <= CANDIDATES:
        return SearchFit({}, TEXT_SHARE)
    found = gallery.search(Embedder(model).images(photos), CANDIDATES)
    reranker = Reranker(model)
    tiles = TileFeatures(model, reranker.role.vision)
    margins, right = np.empty(found.scores.shape), np.zeros(found.scores.shape, bool)
    for i, photo in enumerate(photos):
        shown = tiles.of([gallery.thumbnail(int(row)) for row in found.rows[i]])
        margins[i] = reranker.ask(photo).margins(shown)
        apart = distance_km(truth[i, 0], truth[i, 1], gallery.positions[:, 0], gallery.positions[:, 1])
        nearest = int(np.argmin(apart))
        right[i] = (found.rows[i] == nearest) & (apart[nearest] <= OWN_KM)
        progress("re-rank by photo", i + 1, len(photos))
    looked = Looked(found.scores.astype(np.float64), margins, right)
    return SearchFit(
        {"photo": fit_weighing(looked)} if looked.right.any(axis=1).sum() >= LEAST_LISTS else {}, TEXT_SHARE
    )


def conditional_logit(features: Doubles, right: NDArray[np.int64]) -> Doubles:
    """Weights (F,) under which candidate right[i] of list i is most likely; features (N, K, F), right (N,).

    Newton's method; the problem is concave. Features are scaled by their spread, so that the ridge holds all alike.
    """
    scale = np.maximum(features.std(axis=(0, 1)), 1e-9)
    x, rows = features / scale, np.arange(len(features))
    weights = np.zeros(x.shape[2])
    for _ in range(_STEPS):
        p = _chances(x @ weights)
        expected = np.einsum("nk,nkf->nf", p, x)
        slope = (x[rows, right] - expected).sum(axis=0) - _RIDGE * weights
        curve = np.einsum("nk,nkf,nkg->fg", p, x, x) - expected.T @ expected + _RIDGE * np.eye(len(weights))
        step = np.linalg.solve(curve, slope)
        weights = weights + step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < 1e-9:
            break
    return np.asarray(weights / scale)


def fit_weighing(looked: Looked) -> Weighed:
    """Temperature, weight, cut, and when the first tile is sure; InputError below LEAST_LISTS usable lists.

    Lists without the right tile have nothing to say about the order; with their right tile taken out, all of them say
    what a first tile looks like that is not the place.
    """
    there = looked.right.any(axis=1)
    if there.sum() < LEAST_LISTS:
        raise InputError(
            f"{there.sum()} queries have their own tile among {looked.right.shape[1]} candidates; weighing both stages "
            f"needs at least {LEAST_LISTS}"
        )
    scores, margins, right = looked.scores[there], looked.margins[there], looked.right[there].argmax(axis=1)
    low, high = (float(value) for value in np.percentile(looked.margins, CUT))
    made = _made(scores, margins, right, low, high)
    unseen, alone = np.empty(scores.shape), np.empty(scores.shape)
    fold = folds(np.arange(len(scores)))
    for number in range(FOLDS):
        kept, held = fold != number, fold == number
        unseen[held] = _made(scores[kept], margins[kept], right[kept], low, high).fused(scores[held], margins[held])
        cosines = conditional_logit(scores[kept][..., None], right[kept])
        alone[held] = scores[held] * cosines[0]
    if _likelihood(unseen, right) <= _likelihood(alone, right):
        made, unseen = _alone(scores, right, low, high), alone
    made = replace(made, sure=_sure(looked, made))
    hits = [float((values.argmax(axis=1) == right).mean()) for values in (scores, unseen)]
    return Weighed(made, len(scores), *hits)


def fit_pair_weight(ahead: Doubles, odds: Doubles) -> float:
    """How far a comparison of two is believed: the weight under which the right one of each pair most likely wins.

    ahead (N,): by how much the right one leads by both stages; odds (N,): log-odds of the comparison that it fits
    better. Newton's method in one dimension; the problem is concave.
    """
    scale = max(float(odds.std()), 1e-9)
    x, weight = odds / scale, 0.0
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(np.clip(ahead + weight * x, -30, 30)))
        step = float(((p * x).sum() - _RIDGE * weight) / ((p * (1 - p) * x * x).sum() + _RIDGE))
        weight += float(np.clip(step, -5.0, 5.0))
        if abs(step) < 1e-9:
            break
    return max(0.0, weight / scale)


def fit_text_share(said: Doubles, seen: Doubles) -> float:
    """Share of the words in a search by words and photos: cosines (N, M) of both with M tiles, tile i is query i's."""
    weights = conditional_logit(np.stack([said, seen], axis=-1), np.arange(len(said)))
    words, photos = np.maximum(weights, 0.0)
    return round(float(words / (words + photos)), 3) if words + photos > 0 else 0.5


def _made(scores: Doubles, margins: Doubles, right: NDArray[np.int64], low: float, high: float) -> Weighing:
    features = np.stack([scores, np.clip(margins, low, high)], axis=-1)
    cosine, odds = conditional_logit(features, right)
    if cosine <= 0 or odds <= 0:
        return _alone(scores, right, low, high)
    return Weighing(1 / float(cosine), float(odds), low, high)


def _alone(scores: Doubles, right: NDArray[np.int64], low: float, high: float) -> Weighing:
    """The first stage by itself."""
    (cosine,) = conditional_logit(scores[..., None], right)
    return Weighing(1 / max(float(cosine), 1e-3), 0.0, low, high)


def _sure(looked: Looked, weighing: Weighing) -> Linear:
    """The line between first tiles that are the place and those that are not."""
    features: dict[str, list[Doubles]] = {}
    targets = []
    for without in (False, True):
        scores = np.where(looked.right & without, -np.inf, looked.scores)
        values = np.where(looked.right & without, -np.inf, weighing.fused(looked.scores, looked.margins))
        order = np.argsort(-values, axis=1, kind="stable")
        sorted_by = [np.take_along_axis(one, order, 1) for one in (scores, looked.margins, values, looked.right)]
        # A second look that weighs nothing does not take place, so its log-odds are not known.
        margins = sorted_by[1] if weighing.weight else np.full(order.shape, np.nan)
        for name, column in doubts(sorted_by[0], margins, sorted_by[2]).items():
            features.setdefault(name, []).append(column)
        targets.append(sorted_by[3][:, 0] & ~np.bool_(without))
    return logistic({name: np.concatenate(columns) for name, columns in features.items()}, np.concatenate(targets))


def _chances(values: Doubles) -> Doubles:
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _likelihood(values: Doubles, right: NDArray[np.int64]) -> float:
    return float(np.log(_chances(values)[np.arange(len(right)), right]).sum())
