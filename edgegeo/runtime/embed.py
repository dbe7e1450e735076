"""Text and picture embeddings in one space."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import Bundle, EmbedRole
from edgegeo.errors import BundleError, InputError
from edgegeo.runtime.dual_encoder import DualEncoder
from edgegeo.runtime.image import Source
from edgegeo.runtime.model import Model, load_array
from edgegeo.runtime.pictures import ImageTokens
from edgegeo.runtime.tokens import Piece, checked_ids, fill
from edgegeo.runtime.trunk import Floats, Ints

TOKENS_PER_RUN = 1024
"""Prompt positions in one run of the decoder. Throughput is flat from about 256; more only takes memory (measured at
widths 192 and 576)."""


class Encoder(Protocol):
    """What computes the embeddings of one pooling; their length does not matter, they are normalised afterwards."""

    def texts(self, prompts: Sequence[Sequence[Piece]]) -> Floats:
        """(B, dim) float32 of filled text prompts, the longest first."""

    def features(self, features: Sequence[ImageTokens]) -> Floats:
        """(B, dim) float32 of pictures after the vision component."""


class DecoderEncoder:
    """A decoder as the encoder: pooling "eos", "mean", "last_k" or "queries"."""

    def __init__(self, model: Model, role: EmbedRole) -> None:
        self._model = model
        self._role = role
        self._queries: Floats | None = None
        if role.pooling == "queries":
            if role.queries is None:
                raise BundleError(f"{model.bundle.path}: pooling 'queries' without queries; export the bundle again")
            self._queries = np.asarray(load_array(model.bundle, role.queries), np.float32)

    def texts(self, prompts: Sequence[Sequence[Piece]]) -> Floats:
        """(B, dim) float32 of filled text prompts."""
        return self._pooled(prompts, ())

    def features(self, features: Sequence[ImageTokens]) -> Floats:
        """(B, dim) float32 of image tokens in the frozen image prompt."""
        prompt = fill(self._role.image_prompt)
        return self._pooled([prompt] * len(features), (features,))

    def _pooled(self, prompts: Sequence[Sequence[Piece]], pictures: Sequence[Sequence[ImageTokens]]) -> Floats:
        fed = self._model.assemble(prompts, pictures, self._queries)
        count = self._role.last if self._queries is None else len(self._queries)
        if self._role.pooling == "mean":
            count = int(fed.lengths.max())
        # Rows shorter than `count` ask for their first position more than once; the mean leaves those out.
        places: Ints = fed.lengths[:, None] - count + np.arange(count)
        hidden = self._model.hidden(self._role.trunk, fed, np.maximum(places, 0))
        if count == 1:
            return np.asarray(hidden[:, 0])
        inside = (places >= 0).astype(np.float32)[..., None]
        return np.asarray((hidden * inside).sum(axis=1) / inside.sum(axis=1), np.float32)


ENCODERS: dict[str, Callable[[Model, EmbedRole], Encoder]] = {
    "eos": DecoderEncoder,
    "mean": DecoderEncoder,
    "last_k": DecoderEncoder,
    "queries": DecoderEncoder,
    "dual": DualEncoder,
}
"""What each pooling is computed by."""


class Embedder:
    """Embeds with a bundle's embed role.

    Pooling "eos" is the last hidden state of the last position (NGCG-MLLM, arXiv 2604.10721), "mean" and "last_k" the
    mean of all positions of the prompt, or of the last of them; "queries" is the mean
    over shared latent queries appended to the prompt (SLQ, arXiv 2604.13710); "dual" is what a dual encoder's two
    towers give (CLIP, arXiv 2103.00020; SigLIP, arXiv 2303.15343). All are L2-normalised.

    `dims` cuts embeddings to their first numbers and normalises them again: for models trained for it
    (`EmbedRole.matryoshka`), InputError for others, whose leading numbers mean no more than any.
    """

    def __init__(self, model: Model, dims: int | None = None) -> None:
        role = model.bundle.manifest.roles.embed
        if role is None:
            raise BundleError(f"{model.bundle.path}: the bundle offers no embedding; export it with a retriever")
        self.model = model
        self.role: EmbedRole = role
        if role.pooling not in ENCODERS:
            raise BundleError(f"{model.bundle.path}: unknown pooling '{role.pooling}'; update edgegeo")
        self._encoder = ENCODERS[role.pooling](model, role)
        if dims is not None:
            check_dims(dims, role)
        self._dims = dims or role.dim

    @classmethod
    def open(
        cls, bundle: str | Path | Bundle | Model, threads: int | None = None, provider: str = "cpu",
        dims: int | None = None,
    ) -> "Embedder":  # fmt: skip
        """From a bundle's folder, an opened bundle, or a Model whose sessions are shared."""
        return cls(Model.open(bundle, threads, provider), dims)

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._dims

    @property
    def embedding_id(self) -> str:
        """Identifies the embedding space; a gallery made under another one can't be searched."""
        whole = self.model.bundle.embedding_id
        return whole if self._dims == self.role.dim else f"{whole}:{self._dims}"

    def scales(self) -> NDArray[np.float32]:
        """Steps (dim,) of int8 codes that fit any embedding of this bundle; BundleError where it holds none."""
        if self.role.scales is None:
            raise BundleError(f"{self.model.bundle.path} holds no scales for int8 embeddings; export it again")
        table = load_array(self.model.bundle, self.role.scales)
        rows = [self.role.dim, *self.role.matryoshka]
        if table.shape != (len(rows), self.role.dim):
            raise BundleError(f"{self.model.bundle.path}: the scales of embeddings don't fit them; export it again")
        return np.asarray(table[rows.index(self._dims), : self._dims], np.float32)

    def texts(self, texts: Sequence[str], batch: int = 32) -> NDArray[np.float32]:
        """(N, dim) float32 unit vectors of texts; InputError for an empty or too long one.

        Texts are computed in order of length, so that a batch holds little padding; the result is in their own order.
        """
        return self.tokens([self.ids(text) for text in texts], batch)

    def tokens(self, ids: Sequence[Sequence[int]], batch: int = 32) -> NDArray[np.float32]:
        """`texts` for texts whose token ids (`ids`) are known already."""
        out = np.empty((len(ids), self.dim), np.float32)
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        while order:
            # The first is the longest, so it sets the width of the batch.
            count = max(1, min(batch, TOKENS_PER_RUN // len(ids[order[0]])))
            chosen, order = order[:count], order[count:]
            prompts = [fill(self.role.text_prompt, [ids[i]]) for i in chosen]
            out[chosen] = self._cut(self._encoder.texts(prompts))
        return out

    def reads(self, text: str) -> bool:
        """Whether `texts` takes a text: not empty, and not too long for the model."""
        try:
            return bool(self.ids(text))
        except InputError:
            return False

    def ids(self, text: str) -> list[int]:
        """Token ids of a text; InputError for an empty or too long one."""
        if self.role.lower_case and isinstance(text, str):
            text = text.lower()
        return checked_ids(self.model.tokenizer, text, self.role.max_text_tokens)

    def images(self, images: Sequence[Source], batch: int = 16) -> NDArray[np.float32]:
        """(N, dim) float32 unit vectors of pictures; ImageError for an unusable one."""
        out = np.empty((len(images), self.dim), np.float32)
        for start in range(0, len(images), max(1, batch)):
            pictures = self.model.prepare(images[start : start + max(1, batch)])
            out[start : start + len(pictures)] = self.features(self.model.features(self.role.vision, pictures))
        return out

    def features(self, features: Sequence[ImageTokens]) -> NDArray[np.float32]:
        """(B, dim) float32 unit vectors of pictures whose image tokens were computed already."""
        return self._cut(self._encoder.features(features))

    def _cut(self, vectors: Floats) -> Floats:
        return normalized(vectors[:, : self._dims])


def check_dims(dims: int, role: EmbedRole) -> None:
    """InputError for a length of embeddings that a role was not trained for."""
    if dims in (*role.matryoshka, role.dim):
        return
    known = ", ".join(map(str, (*role.matryoshka, role.dim)))
    raise InputError(
        f"this bundle's embeddings may have {known} dimensions, not {dims}; for others train a retriever with "
        f"matryoshka = [{dims}] and export it again"
    )


def normalized(vectors: Floats) -> Floats:
    """Unit vectors (N, D) float32; the zero vector stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)
