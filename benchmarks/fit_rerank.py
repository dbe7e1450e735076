"""Fits how much yes/no weighs beside the first-stage score (edgegeo/runtime/rerank.py) on validation places.

    python benchmarks/fit_rerank.py BUNDLE [PLACES]

Prints Recall@1 of the top 10 for each weight of the margin, then how sure the model is of the tile it puts first
when the right tile is in the gallery and when it is not: what MARGIN_WEIGHT and CONFIDENT were chosen from.
"""

import sys

import numpy as np

from edgegeo.evaluate import planet_scenes
from edgegeo.runtime import Embedder, Model, Reranker
from edgegeo.runtime.locator import CONFIDENT
from edgegeo.runtime.rerank import MARGIN_WEIGHT, TEMPERATURE, probability

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 2.0)
CANDIDATES = 10


def main(bundle: str, places: int = 600) -> None:
    model = Model.open(bundle)
    embedder, reranker = Embedder(model), Reranker(model)
    scenes = planet_scenes(places, "validation")
    tiles = embedder.images([s.tile for s in scenes])
    for name, vectors, queries in (
        ("text", embedder.texts([s.text for s in scenes]), [s.text for s in scenes]),
        ("photo", embedder.images([s.photo for s in scenes]), [s.photo for s in scenes]),
    ):
        cosines = vectors @ tiles.T
        top = np.argsort(-cosines, axis=1, kind="stable")[:, :CANDIDATES]
        margins = np.stack(
            [reranker.margins(q, [scenes[t].tile for t in row]) for q, row in zip(queries, top, strict=True)]
        )
        right = top == np.arange(places)[:, None]
        report(name, np.take_along_axis(cosines, top, 1), margins, right)


def report(name: str, cosines: np.ndarray, margins: np.ndarray, right: np.ndarray) -> None:
    """Everything (places, candidates)."""
    rows = np.arange(len(right))
    for weight in WEIGHTS:
        first = (cosines / TEMPERATURE + weight * margins).argmax(1)
        print(f"{name:6} weight {weight:.1f}: Recall@1 {100 * right[rows, first].mean():.1f} %")
    print(f"{name:6} margin alone: Recall@1 {100 * right[rows, margins.argmax(1)].mean():.1f} %")
    both = cosines / TEMPERATURE + MARGIN_WEIGHT * margins
    for title, order in (("present", both), ("absent", np.where(right, -np.inf, both))):
        first = order.argmax(1)
        sure = probability(margins[rows, first]) >= CONFIDENT
        print(f"{name:6} {title}: sure of {sure.sum()} of {len(sure)}, {right[rows, first][sure].sum()} of those right")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
