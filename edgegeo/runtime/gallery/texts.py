"""A gallery of texts: which of them fits a tile or a photo. The way back from pictures to words."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import InputError
from edgegeo.runtime.embed import Embedder
from edgegeo.runtime.gallery.exact import exact_search
from edgegeo.runtime.pictures import ImageTokens
from edgegeo.runtime.rerank import Reranker, probability
from edgegeo.runtime.trunk import Floats
from edgegeo.runtime.weighing import Weighing, rank


@dataclass(frozen=True)
class TextHit:
    """A text that fits a picture."""

    row: int
    """Its place among the texts."""
    text: str
    score: float
    """Cosine of text and picture."""
    rerank_score: float | None = None
    """p(yes) for the pair, if it was looked at."""


class TextGallery:
    """Texts embedded once, searched by the vectors of pictures."""

    def __init__(self, texts: Sequence[str], embedder: Embedder) -> None:
        """InputError, with the number of the text, for one that the model can't read."""
        if not texts:
            raise InputError("there are no texts to search in; give one a line")
        for row, text in enumerate(texts, start=1):
            try:
                embedder.ids(text)
            except InputError as error:
                raise InputError(f"text {row}: {error}") from None
        self.texts = list(texts)
        self.vectors: Floats = embedder.texts(self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    def search(self, vector: NDArray[np.float32], k: int = 10) -> list[TextHit]:
        """The k texts nearest to a picture's unit vector (dim,) or (1, dim); equal ones in their order."""
        rows, scores = exact_search(self.vectors, np.atleast_2d(vector), k)
        return [TextHit(int(row), self.texts[row], float(score)) for row, score in zip(rows[0], scores[0], strict=True)]


def rerank_texts(
    reranker: Reranker, picture: ImageTokens, hits: Sequence[TextHit], weighing: Weighing | None = None
) -> list[TextHit]:
    """Hits in the order of both stages: each text is read before the picture, as in training, and yes or no is asked.

    weighing: the bundle's for texts (`Fit.rerank`), which was fitted on the same pairs.
    """
    texts = [hit.text for hit in hits]
    margins = np.full(len(hits), np.nan)

    def look(places: Sequence[int]) -> NDArray[np.float64]:
        margins[list(places)] = reranker.text_margins(picture, [texts[i] for i in places])
        return margins[list(places)]

    ranked = rank(np.array([hit.score for hit in hits]), weighing or Weighing(), look)
    p_yes = probability(margins)
    return [
        TextHit(hits[i].row, hits[i].text, hits[i].score, None if np.isnan(margins[i]) else float(p_yes[i]))
        for i in map(int, ranked.order)
    ]


def read_texts(file: str | Path) -> list[str]:
    """One text a line, UTF-8, empty lines left out; InputError for a file that is none."""
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} can't be read as text ({error}); give a UTF-8 file with one text a line") from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise InputError(f"{file} holds no text; write one a line")
    return found
