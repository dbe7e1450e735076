"""Text and picture embeddings in one space."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import Bundle, EmbedRole
from edgegeo.errors import BundleError
from edgegeo.runtime.image import Source
from edgegeo.runtime.model import Model, load_array
from edgegeo.runtime.tokens import Piece, checked_ids, fill
from edgegeo.runtime.trunk import Floats, Ints

_TOKENS_PER_RUN = 1024
# Throughput is flat from about 256 positions a run; more only takes memory (measured at widths 192 and 576).


class Embedder:
    """Embeds with a bundle's embed role.

    Pooling "eos" is the last hidden state of the last position (NGCG-MLLM, arXiv 2604.10721); "queries" is the mean
    over shared latent queries appended to the prompt (SLQ, arXiv 2604.13710). Both are L2-normalised.
    """

    def __init__(self, model: Model) -> None:
        role = model.bundle.manifest.roles.embed
        if role is None:
            raise BundleError(f"{model.bundle.path}: the bundle offers no embedding; export it with a retriever")
        self.model = model
        self.role: EmbedRole = role
        self._queries: Floats | None = None
        if role.pooling == "queries":
            if role.queries is None:
                raise BundleError(f"{model.bundle.path}: pooling 'queries' without queries; export the bundle again")
            self._queries = np.asarray(load_array(model.bundle, role.queries), np.float32)
        elif role.pooling != "eos":
            raise BundleError(f"{model.bundle.path}: unknown pooling '{role.pooling}'; update edgegeo")

    @classmethod
    def open(cls, bundle: str | Path | Bundle | Model, threads: int | None = None, provider: str = "cpu") -> "Embedder":
        """From a bundle's folder, an opened bundle, or a Model whose sessions are shared."""
        return cls(Model.open(bundle, threads, provider))

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.role.dim

    @property
    def embedding_id(self) -> str:
        """Identifies the embedding space; a gallery made under another one can't be searched."""
        return self.model.bundle.embedding_id

    def texts(self, texts: Sequence[str], batch: int = 32) -> NDArray[np.float32]:
        """(N, dim) float32 unit vectors of texts; InputError for an empty or too long one.

        Texts are computed in order of length, so that a batch holds little padding; the result is in their own order.
        """
        ids = [checked_ids(self.model.tokenizer, text, self.role.max_text_tokens) for text in texts]
        out = np.empty((len(ids), self.dim), np.float32)
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        while order:
            # The first is the longest, so it sets the width of the batch.
            count = max(1, min(batch, _TOKENS_PER_RUN // len(ids[order[0]])))
            chosen, order = order[:count], order[count:]
            prompts = [fill(self.role.text_prompt, [ids[i]]) for i in chosen]
            out[chosen] = self._pooled(prompts, ())
        return out

    def images(self, images: Sequence[Source], batch: int = 16) -> NDArray[np.float32]:
        """(N, dim) float32 unit vectors of pictures; ImageError for an unusable one."""
        out = np.empty((len(images), self.dim), np.float32)
        for start in range(0, len(images), max(1, batch)):
            pixels = self.model.prepare(images[start : start + max(1, batch)])
            out[start : start + len(pixels)] = self.features(self.model.features(self.role.vision, pixels))
        return out

    def features(self, features: Floats) -> NDArray[np.float32]:
        """(B, dim) float32 unit vectors of image tokens (B, tokens, hidden) that were computed already."""
        prompt = fill(self.role.image_prompt)
        return self._pooled([prompt] * len(features), (features,))

    def _pooled(self, prompts: Sequence[Sequence[Piece]], pictures: Sequence[Floats]) -> Floats:
        embeds, lengths = self.model.assemble(prompts, pictures, self._queries)
        count = 1 if self._queries is None else len(self._queries)
        positions: Ints = lengths[:, None] - count + np.arange(count)
        hidden = self.model.trunk(self.role.trunk).hidden(embeds, lengths, positions)
        return normalized(hidden.mean(axis=1) if count > 1 else hidden[:, 0])


def normalized(vectors: Floats) -> Floats:
    """Unit vectors (N, D) float32; the zero vector stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)
