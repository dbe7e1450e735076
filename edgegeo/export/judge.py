"""What an accuracy budget is counted in: the model's own task on places it was neither trained nor calibrated on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import InputError
from edgegeo.evaluate import Scene
from edgegeo.evaluate.gps import locate_scenes
from edgegeo.evaluate.retrieval import Embeddings, ranks
from edgegeo.export.switched import SwitchedModel
from edgegeo.progress import Progress, silent
from edgegeo.runtime import Embedder, Generator, ImageTokens, Model
from edgegeo.runtime.tokens import fill

Values = NDArray[np.float64]
CHUNK = 32
CACHED_BYTES = 512 << 20
"""Image tokens that are kept between two mixes that differ in the decoder only."""


@dataclass
class ImageCache:
    """Image tokens of the pictures of one mix of the vision tower; another mix takes their place."""

    key: Any = None
    rows: dict[bytes, ImageTokens] = field(default_factory=dict)
    held: int = 0
    """Bytes of the rows."""

    def features(self, model: Model, component: str, pictures: Sequence[bytes]) -> list[ImageTokens]:
        """Image tokens of encoded pictures, computed where they are not known for the model's present mix."""
        key = (id(model), component, model.chosen(component) if isinstance(model, SwitchedModel) else b"")
        if key != self.key:
            self.key, self.rows, self.held = key, {}, 0
        unknown = [picture for picture in dict.fromkeys(pictures) if picture not in self.rows]
        found = dict(zip(unknown, model.features(component, model.prepare(unknown)), strict=True)) if unknown else {}
        for picture, tokens in found.items():
            if self.held + tokens.rows.nbytes <= CACHED_BYTES:
                # A row of a batch is a view: without a copy it would keep the whole batch.
                self.rows[picture] = ImageTokens(tokens.rows.copy(), tokens.layout, tokens.grid)
                self.held += tokens.rows.nbytes
        return [found.get(picture) or self.rows[picture] for picture in pictures]


@dataclass(frozen=True)
class Judge:
    """One way to count what quantisation costs."""

    name: str
    """In words, as "Recall@1 of texts and photos"."""
    role: str
    """The role whose components it sees: "embed" or "generate"."""
    outcomes: Callable[[Model, Sequence[Scene], ImageCache, Progress], dict[str, Values]]
    """Metric -> one 0/1 value a place (N,)."""
    probe: Callable[[Model, Sequence[Scene], ImageCache], list[NDArray[Any]]]
    """The model's outputs that errors are measured at: arrays (N, D)."""
    compares: bool = False
    """Whether outcomes say how a model differs from the first that was asked, which has to be the fp32 one."""


RECALLS = ("text_to_tile_recall_at_1", "photo_to_tile_recall_at_1")
GPS = "gps_within_750_km"


def judge_of(roles: Sequence[str], agreement: bool = False) -> Judge:
    """Recall@1 where the model embeds; GPS@750 km where it only answers. agreement: see `agreeing`."""
    if agreement:
        if "embed" not in roles:
            raise InputError("agreement compares the first tiles of queries, and this checkpoint embeds nothing")
        return agreeing()
    if "embed" in roles:
        return Judge("Recall@1", "embed", _recalls, probe_embeddings)
    return Judge("GPS@750 km", "generate", _within, probe_logits)


def agreeing() -> Judge:
    """The share of queries whose first tile is the one that fp32 graphs find first, whether that is right or not.

    For models that don't know the planet: its places are then only pictures and texts. The model that is asked first
    about some scenes is the fp32 one.
    """
    known: dict[tuple[str, ...], dict[str, NDArray[np.int64]]] = {}

    def outcomes(
        model: Model, scenes: Sequence[Scene], cache: ImageCache, progress: Progress = silent
    ) -> dict[str, Values]:
        found = embed(model, scenes, cache, progress)
        sides = (("text_to_tile", found.texts), ("photo_to_tile", found.photos))
        first = {f"{pair}_same_first": (rows @ found.tiles.T).argmax(axis=1) for pair, rows in sides}
        exact = known.setdefault(tuple(one.id for one in scenes), first)
        return {name: (rows == exact[name]).astype(np.float64) for name, rows in first.items()}

    return Judge("agreement with fp32", "embed", outcomes, probe_embeddings, compares=True)


def embed(model: Model, scenes: Sequence[Scene], cache: ImageCache, progress: Progress = silent) -> Embeddings:
    """Unit vectors of texts, photos and tiles; as `embed_scenes`, with image tokens kept between calls."""
    embedder = Embedder(model)
    parts: dict[str, list[NDArray[np.float32]]] = {"texts": [], "photos": [], "tiles": []}
    for start in range(0, len(scenes), CHUNK):
        chunk = scenes[start : start + CHUNK]
        parts["texts"].append(embedder.texts([one.text for one in chunk]))
        tokens = cache.features(model, embedder.role.vision, [p for one in chunk for p in (one.photo, one.tile)])
        parts["photos"].append(embedder.features(tokens[0::2]))
        parts["tiles"].append(embedder.features(tokens[1::2]))
        progress("embed", start + len(chunk), len(scenes))
    return Embeddings(**{name: np.concatenate(rows) for name, rows in parts.items()})


def probe_embeddings(model: Model, scenes: Sequence[Scene], cache: ImageCache) -> list[NDArray[Any]]:
    """Unit vectors of texts, photos and tiles."""
    found = embed(model, scenes, cache)
    return [found.texts, found.photos, found.tiles]


def probe_logits(model: Model, scenes: Sequence[Scene], cache: ImageCache) -> list[NDArray[Any]]:
    """Logits (N, vocabulary) of the first token of the answer to each photo, less their mean."""
    role = model.bundle.manifest.roles.generate
    assert role is not None
    rows = []
    for start in range(0, len(scenes), CHUNK):
        tokens = cache.features(model, role.vision, [one.photo for one in scenes[start : start + CHUNK]])
        fed = model.assemble([fill(role.prompt)] * len(tokens), (tokens,))
        hidden = model.trunk(role.trunk).hidden(fed, fed.lengths[:, None] - 1)
        # The head is built for one position a row, whatever the rows.
        rows.append(model.session(role.head).run(["logits"], {"hidden_states": hidden})[0][:, 0])
    logits = np.concatenate(rows)
    return [logits - logits.mean(axis=1, keepdims=True)]


def _recalls(model: Model, scenes: Sequence[Scene], cache: ImageCache, progress: Progress) -> dict[str, Values]:
    found = embed(model, scenes, cache, progress)
    pairs = zip(RECALLS, (found.texts, found.photos), strict=True)
    return {name: (ranks(queries, found.tiles) == 0).astype(np.float64) for name, queries in pairs}


def _within(model: Model, scenes: Sequence[Scene], cache: ImageCache, progress: Progress) -> dict[str, Values]:
    run = locate_scenes(Generator(model), scenes, progress=progress)
    return {GPS: (run.distances <= 750).astype(np.float64)}
