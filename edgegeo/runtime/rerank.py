"""Re-ranking: the model looks at query and candidate together and answers yes or no."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgegeo.bundle import Bundle, RerankRole, Segment
from edgegeo.errors import BundleError
from edgegeo.runtime.image import Source
from edgegeo.runtime.model import Model, load_array
from edgegeo.runtime.pictures import ImageTokens, Instead, most_positions
from edgegeo.runtime.tokens import Piece, checked_ids, fill
from edgegeo.runtime.trunk import Floats

Query = str | Path | bytes | Image.Image
"""A `str` is a text; a picture is a Path, the bytes of a file, or a Pillow image."""

TEMPERATURE = 0.03
"""The retriever's InfoNCE temperature (NGCG-MLLM): cosines divided by it are log-likelihoods up to a constant."""
MARGIN_WEIGHT = 0.3
"""Fitted on 600 validation places of the planet, 10 candidates (benchmarks/fit_rerank.py): Recall@1 59.2 to 59.7 %
(text), 87.3 to 88.2 % (photo), which is within the noise; with the margin alone 33.5 and 55.5 %."""


class Reranker:
    """p(yes) / (p(yes) + p(no)) at the first answer position, over all casings of the two words.

    Indexing multimodal language models (arXiv 2604.13268). The softmax denominator cancels, so a few rows of the head
    are enough and the full head never runs.
    """

    def __init__(self, model: Model) -> None:
        role = model.bundle.manifest.roles.rerank
        if role is None:
            raise BundleError(
                f"{model.bundle.path}: the bundle offers no re-ranking (no dual encoder does); export a multimodal LLM"
                ", or leave re-ranking out"
            )
        self.model = model
        self.role: RerankRole = role
        self._rows = np.asarray(load_array(model.bundle, role.rows), np.float32)
        count = len(role.yes_ids) + len(role.no_ids)
        if self._rows.shape != (count, model.bundle.decoder.hidden) or not (role.yes_ids and role.no_ids):
            raise BundleError(f"{model.bundle.path}: the yes/no rows don't fit the manifest; export the bundle again")
        self._bias = np.array(role.bias or (0.0,) * count, np.float32)

    @classmethod
    def open(cls, bundle: str | Path | Bundle | Model, threads: int | None = None, provider: str = "cpu") -> "Reranker":
        """From a bundle's folder, an opened bundle, or a Model whose sessions are shared."""
        return cls(Model.open(bundle, threads, provider))

    def score(self, query: Query, candidates: Sequence[Source], batch: int = 16) -> NDArray[np.float64]:
        """p(yes) of every candidate picture: (N,) float64 in [0, 1]."""
        return probability(self.margins(query, candidates, batch))

    def margins(self, query: Query, candidates: Sequence[Source], batch: int = 16) -> NDArray[np.float64]:
        """log p(yes) - log p(no) of every candidate picture: (N,) float64. Its sigmoid is the score."""
        pieces, pictures = self.query(query)
        out = np.empty(len(candidates), np.float64)
        for start in range(0, len(candidates), max(1, batch)):
            shown = self.model.prepare(candidates[start : start + max(1, batch)])
            features = self.model.features(self.role.vision, shown)
            out[start : start + len(features)] = self.features(pieces, pictures, features)
        return out

    @property
    def max_query_tokens(self) -> int:
        """Longest text that fits beside the candidate and the words of the prompt."""
        bundle = self.model.bundle
        fixed = sum(len(s.ids) for s in self.role.text_prompt if s.ids is not None)
        return bundle.decoder.max_positions - most_positions(bundle.manifest.image) - fixed

    def query(self, query: Query) -> tuple[list[Piece], list[ImageTokens]]:
        """What `features` needs of a query: the filled prompt, and its picture's image tokens if it is a picture."""
        if isinstance(query, str):
            ids = checked_ids(self.model.tokenizer, query, self.max_query_tokens)
            return fill(self.role.text_prompt, [ids]), []
        return fill(self.role.image_prompt), self.model.features(self.role.vision, self.model.prepare([query]))

    def features(
        self, pieces: Sequence[Piece], pictures: Sequence[ImageTokens], features: Sequence[ImageTokens]
    ) -> NDArray[np.float64]:
        """Margins (N,) of candidates whose image tokens were computed already.

        What stands before the candidate is computed once; every candidate then overwrites the rest of the KV buffer.
        """
        if len(features) == 0:
            return np.empty(0, np.float64)
        slot = len(pictures)
        cut = next((i for i, piece in enumerate(pieces) if isinstance(piece, int) and piece == slot), None)
        if cut is None:
            raise BundleError(f"{self.model.bundle.path}: the re-rank prompt shows no candidate; export it again")
        if cut and any(isinstance(one.layout[0], Instead) for one in features):
            cut -= 1  # such a candidate rewrites the words before it, so they are not shared
        shown = [[picture] for picture in pictures]
        suffixes = [self.model.assemble([pieces[cut:]], [*shown, [candidate]]) for candidate in features]
        longest = max(int(suffix.lengths[0]) for suffix in suffixes)
        trunk = self.model.trunk(self.role.trunk)
        if cut:
            prefix = self.model.assemble([pieces[:cut]], shown)
            cache = trunk.cache(1, int(prefix.lengths[0]) + longest)
            cache.extend(prefix, prefix.lengths[None] - 1)
        else:
            cache = trunk.cache(1, longest)
        start = cache.mark()
        hidden = np.empty((len(features), suffixes[0].embeds.shape[2]), np.float32)
        for row, suffix in enumerate(suffixes):
            cache.rewind(start)
            hidden[row] = cache.extend(suffix, suffix.lengths[None] - 1)[0, 0]
        return self._margins(hidden)

    def text_margins(self, query: str | ImageTokens, texts: Sequence[str]) -> NDArray[np.float64]:
        """Margins (N,) of candidates that are texts; InputError for one that is empty or too long.

        A picture that asks is read behind each text: the pair that was trained, turned round. A text that asks is read
        before the text, in the picture's place, which no training showed. On 60 places of the planet, one right text
        in ten, AUC 0.963 (photo), 0.996 (tile) and 0.990 (text); a text behind a picture reaches 0.846 and 0.949.
        """
        if not isinstance(query, str):
            pairs = [self.query(text)[0] for text in texts]
            return np.array([self.features(pieces, [], [query])[0] for pieces in pairs], np.float64)
        prompt = [Segment(text=1) if segment.image == 0 else segment for segment in self.role.text_prompt]
        fixed = sum(len(segment.ids or ()) for segment in prompt)
        room = self.model.bundle.decoder.max_positions - fixed
        asked = checked_ids(self.model.tokenizer, query, room)
        pairs = [fill(prompt, [asked, checked_ids(self.model.tokenizer, text, room - len(asked))]) for text in texts]
        trunk = self.model.trunk(self.role.trunk)
        hidden = np.empty((len(pairs), self._rows.shape[1]), np.float32)
        for row, pieces in enumerate(pairs):
            fed = self.model.assemble([pieces])
            hidden[row] = trunk.hidden(fed, fed.lengths[:, None] - 1)[0, 0]
        return self._margins(hidden)

    def _margins(self, hidden: Floats) -> NDArray[np.float64]:
        """log p(yes) - log p(no) (N,) from hidden states (N, H) of the last position."""
        logits = hidden @ self._rows.T + self._bias
        yes = len(self.role.yes_ids)
        return logsumexp(logits[:, :yes]) - logsumexp(logits[:, yes:])


def fused(scores: NDArray[Any], margins: NDArray[Any]) -> NDArray[np.float64]:
    """Order of candidates from both stages: (N,) float64, larger is better.

    scores (N,): first-stage cosines; margins (N,): log-odds of yes. Pointwise yes/no alone orders worse than the
    retriever it re-ranks (papers on cross-view data warn of it, and so it is here), so it only weighs in.
    """
    return np.asarray(np.asarray(scores, np.float64) / TEMPERATURE + MARGIN_WEIGHT * np.asarray(margins, np.float64))


def logsumexp(values: Floats) -> NDArray[np.float64]:
    """log(sum(exp(row))) of every row, without overflow: (N, K) to (N,) float64."""
    top = values.max(axis=1).astype(np.float64)
    return np.asarray(top + np.log(np.exp(values - top[:, None]).sum(axis=1)))


def probability(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logistic function of margins, without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * margins)))
