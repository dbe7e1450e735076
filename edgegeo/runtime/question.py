"""A question for a place: photos of it, words about it, and what it is not, as one vector to search with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgegeo.errors import InputError
from edgegeo.runtime.embed import Embedder, normalized
from edgegeo.runtime.image import Source
from edgegeo.runtime.pictures import ImageTokens, Picture
from edgegeo.runtime.trunk import Floats
from edgegeo.runtime.weighing import TEXT_SHARE

AVOID = 0.5
"""How far a cosine with what is to be avoided counts against one with what is sought. Of inland places of the planet
(800 validation places) searched by their descriptions but "the sea", 0.8 % of the first 10 tiles lie by the sea instead
of 9.1 %, and 97.5 % of the places are still among them instead of 98.8 %; at 1.0 it is 92.9 %. A model avoids what its
embeddings know by a few words: the packaged one the sea (AUC 0.98), but no church (0.53)."""


@dataclass(frozen=True)
class Question:
    """What is asked for."""

    photos: tuple[Source | Picture, ...] = ()
    """Of one place."""
    text: str | None = None
    avoid: tuple[str, ...] = ()
    """What the place is not: "the sea", "a town"."""

    def __post_init__(self) -> None:
        if not self.photos and self.text is None:
            what = "what it is not" if self.avoid else "nothing"
            raise InputError(f"nothing to locate: give a photo, a text, or both, besides {what}")


def query_vector(
    embedder: Embedder, photos: Sequence[Sequence[ImageTokens]], text: str | None = None, avoid: Sequence[str] = (),
    text_share: float = TEXT_SHARE,
) -> Floats:  # fmt: skip
    """(1, dim) float32 of photos of one place after the vision tower, words, and words for what it is not.

    Photos count alike; of photos and words the words are `text_share`. Without `avoid` it is a unit vector; with it
    the inner product with a tile is a cosine, less AVOID times the cosine with each thing to avoid.
    """
    seen = [embedder.features(one) for one in photos]
    said = None if text is None else embedder.texts([text])
    away = embedder.texts(list(avoid)) if avoid else np.empty((0, embedder.dim), np.float32)
    return combined(np.concatenate(seen) if seen else away[:0], said, away, text_share)


def combined(photos: Floats, text: Floats | None, avoid: Floats, text_share: float = TEXT_SHARE) -> Floats:
    """`query_vector` of unit vectors: photos (N, dim), text (1, dim), things to avoid (M, dim)."""
    wanted = text
    if len(photos):
        wanted = normalized(photos.sum(axis=0, keepdims=True))
        if text is not None:
            wanted = (1 - text_share) * wanted + text_share * text
    assert wanted is not None, "a question has photos or words"
    if text is not None and len(photos):
        wanted = normalized(np.asarray(wanted, np.float32))
    if len(avoid):
        wanted = wanted - np.float32(AVOID) * avoid.sum(axis=0, keepdims=True)
    return np.asarray(wanted, np.float32)
