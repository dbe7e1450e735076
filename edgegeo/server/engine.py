"""The one place where the server touches the runtime: a bundle and a gallery, opened and ready to answer."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgegeo.bundle import Manifest, open_bundle
from edgegeo.errors import BundleError
from edgegeo.runtime import Answer, Decoding, Embedder, Generated, Hit, Locator, Model, Picture
from edgegeo.runtime.decoding import Listener
from edgegeo.runtime.generate import SAMPLING
from edgegeo.runtime.outcome import hits_of
from edgegeo.runtime.rerank import probability
from edgegeo.runtime.sessions import default_threads
from edgegeo.runtime.verify import verify_model
from edgegeo.runtime.weighing import TEXT_SHARE
from edgegeo.server.faults import Refusal
from edgegeo.server.inputs import Floats
from edgegeo.server.settings import ServerSettings

_ROLES = {"embed": "embedding", "rerank": "re-ranking", "generate": "generation"}
_NO_MEMORY = re.compile(r"bad_alloc|fail\w* to allocate|out of memory|alloc_failed", re.IGNORECASE)


def offered(manifest: Manifest) -> list[str]:
    """The roles that a bundle offers."""
    return [role for role in _ROLES if getattr(manifest.roles, role) is not None]


def known(error: Exception) -> Exception:
    """The error itself, or a MemoryError where it is onnxruntime's way to say that there is none left."""
    foreign = type(error).__module__.startswith("onnxruntime") or isinstance(error, BundleError)
    if foreign and _NO_MEMORY.search(str(error)):
        short = MemoryError(str(error))
        short.__cause__ = error
        return short
    return error


class Engine:
    """Everything a route may ask of the model. The calls that compute belong on the model thread."""

    def __init__(self, locator: Locator) -> None:
        self.locator = locator
        self.gallery = locator.gallery
        bundle = locator.model.bundle
        self.name = bundle.manifest.name
        self.family = bundle.manifest.family
        self.fingerprint = bundle.fingerprint
        self.image_spec = bundle.manifest.image
        self.precision = {name: part.precision for name, part in bundle.manifest.components.items()}
        self.bytes = bundle.bytes
        self.roles = offered(bundle.manifest)
        self.embedding_id = bundle.embedding_id if "embed" in self.roles else ""

    @classmethod
    def open(cls, settings: ServerSettings) -> "Engine":
        """Open the first bundle of the settings and its gallery. Raises BundleError, GalleryError, DeviceError."""
        return cls.load(settings.bundles[0], settings.gallery, settings)

    @classmethod
    def load(cls, bundle: Path, gallery: Path | str | None, settings: ServerSettings) -> "Engine":
        """Open a bundle and its gallery, all hashes checked, as the settings say. Raises as `open`."""
        # A core is left to HTTP and to the decoding of pictures: where all of them run the model, each of its steps
        # waits for the one that was taken away.
        cores = max(1, default_threads() - 1)
        model = Model(open_bundle(bundle), settings.threads, settings.provider, cores)
        return cls(Locator.open(model, gallery))

    def renewed(self) -> "Engine":
        """The same bundle with its gallery as it is on disk now. Raises GalleryError."""
        gallery = None if self.gallery is None else self.gallery.newest()
        if gallery is None or gallery is self.gallery:
            return self
        gallery.row("")  # what a first lookup has to read is read now, not on the event loop
        return Engine(Locator(self.locator.model, gallery, self.locator.kept))

    def prove(self) -> None:
        """Answer the golden inputs inside the bundle; BundleError where the answers are not those of its export."""
        report = verify_model(self.locator.model)
        if not report.passed:
            failed = ", ".join(check.name for check in report.checks if not check.passed)
            raise BundleError(
                f"{report.bundle} does not answer its golden inputs as it should ({failed}); export it again"
            )

    @property
    def batches_texts(self) -> bool:
        """Whether texts may share a call; pictures always may.

        int8 graphs for onnxruntime take the range of their activations from everything in a run, so that an embedding
        depends a little on its batch. Of the pocket model's pictures the cosine with the one computed alone stays
        above 0.9995 (2,500 in batches of 2 to 16, noise and blank ones among them), and batches serve a third more of
        them; of its texts it falls to 0.998, for no gain. Other graphs differ by rounding only.
        """
        manifest, role = self.locator.model.bundle.manifest, self.locator.model.bundle.manifest.roles.embed
        return role is None or manifest.dialect != "ort" or "int8" not in manifest.components[role.trunk].precisions

    @property
    def providers(self) -> list[str]:
        """Execution providers that onnxruntime really uses, of every component together."""
        names = self.locator.model.bundle.manifest.components
        used = [provider for name in names for provider in self.locator.model.session(name).get_providers()]
        return list(dict.fromkeys(used))

    @property
    def summary(self) -> str:
        """One line of what is served."""
        precision = "+".join(sorted(set(self.precision.values())))
        tiles = "no gallery" if self.gallery is None else f"{len(self.gallery):,} tiles"
        return f"{self.name} ({precision}, {self.locator.model.provider}, {tiles})"

    @property
    def gallery_name(self) -> str | None:
        """Name of the gallery's folder, None without one."""
        return None if self.gallery is None else self.gallery.name

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return 0 if self.locator.embedder is None else self.locator.embedder.dim

    @property
    def text_share(self) -> float:
        """Share of the words in a search by words and pictures."""
        fit = self.locator.fit
        return TEXT_SHARE if fit is None else fit.text_share

    @property
    def compares(self) -> bool:
        """Whether the model is asked which of two tiles fits."""
        rerank = self.locator.model.bundle.manifest.roles.rerank
        return rerank is not None and rerank.pair is not None

    def require(self, role: str) -> None:
        """404 if the bundle does not offer the role."""
        if role not in self.roles:
            raise Refusal(
                404, "role_not_offered", f"the bundle being served offers no {_ROLES[role]}; serve one that does"
            )

    def require_gallery(self) -> str:
        """The gallery's name; 404 without one."""
        if self.gallery_name is None:
            raise Refusal(404, "no_gallery", "no gallery is being served; start with: edgegeo serve --gallery FOLDER")
        return self.gallery_name

    def text_tokens(self, text: str) -> list[int]:
        """What `embed_texts` takes; InputError for a text that the model can't read. Safe on any thread."""
        return self._embedder.ids(text)

    def embed_texts(self, tokens: list[list[int]]) -> list[Floats]:
        """A unit vector (dim,) of each text."""
        return list(self._embedder.tokens(tokens, batch=len(tokens)))

    def embed_images(self, pictures: list[Picture]) -> list[Floats]:
        """A unit vector (dim,) of each prepared picture."""
        embedder = self._embedder
        return list(embedder.features(self.locator.model.features(embedder.role.vision, pictures)))

    @property
    def _embedder(self) -> Embedder:
        assert self.locator.embedder is not None, "require('embed') comes first"
        return self.locator.embedder

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, without the prompt around it."""
        return len(self.locator.model.tokenizer.encode(text))

    def rerank(self, query: str | Picture, documents: list[str | Picture]) -> list[float]:
        """p(yes) of every document, a text or a picture, for a text or a picture."""
        reranker, model = self.locator.reranker, self.locator.model
        assert reranker is not None, "require('rerank') comes first"
        vision = reranker.role.vision
        asked = query if isinstance(query, str) else model.features(vision, [query])[0]
        margins = np.empty(len(documents), np.float64)
        if texts := {i: one for i, one in enumerate(documents) if isinstance(one, str)}:
            margins[list(texts)] = reranker.text_margins(asked, list(texts.values()))
        if pictures := {i: one for i, one in enumerate(documents) if not isinstance(one, str)}:
            margins[list(pictures)] = reranker.ask(asked).margins(model.features(vision, list(pictures.values())))
        return [float(score) for score in probability(margins)]

    def locate(self, photo: Image.Image | None, text: str | None, **how: Any) -> Answer:
        """`Locator.locate`."""
        return self.locator.locate(photo=photo, text=text, **how)

    def answer(
        self,
        picture: Picture,
        decoding: Decoding | None = None,
        listener: Listener | None = None,
        count: int = 1,
    ) -> list[Generated]:
        """`count` generated answers for one prepared picture."""
        generator = self.locator.generator
        assert generator is not None, "require('generate') comes first"
        seen = self.locator.model.features(generator.role.vision, [picture])
        if count == 1:
            return generator.features(seen, decoding, listener)
        return generator.candidates_of(seen[0], count, decoding or SAMPLING, listener)

    def search(self, vector: Floats, k: int) -> list[Hit]:
        """The k nearest tiles to a unit vector (dim,). Safe on any thread."""
        assert self.gallery is not None, "require_gallery() comes first"
        return hits_of(self.gallery.search(vector, k))

    def thumbnail(self, tile: str) -> bytes | None:
        """JPEG of a tile; None for an unknown one."""
        row = None if self.gallery is None else self.gallery.row(tile)
        return None if self.gallery is None or row is None else self.gallery.thumbnail(row)

    @property
    def planet_seed(self) -> int | None:
        """Seed of the demo planet that the gallery shows or else the model knows, None for any other world."""
        sources = () if self.gallery is None else self.gallery.sources
        if sources and sources[0].kind == "planet":
            return sources[0].seed
        seed = self.locator.model.bundle.manifest.source.get("planet_seed")
        return seed if isinstance(seed, int) else None
