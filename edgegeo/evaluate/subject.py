"""What is scored: anything that embeds or answers. A bundle is wrapped here; a torch checkpoint is handed in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgegeo.bundle import Bundle
from edgegeo.errors import InputError
from edgegeo.geo import Position
from edgegeo.runtime import Embedder, Generator, Model
from edgegeo.runtime.pictures import prepare_picture

Vectors = NDArray[np.float32]
Said = tuple[str, Position | None]
"""What was written about a picture, and the position in it."""


class Subject(Protocol):
    """A model under evaluation."""

    @property
    def name(self) -> str:
        """How results call it."""

    @property
    def kind(self) -> str:
        """bundle or checkpoint."""

    @property
    def batch(self) -> int:
        """Inputs a call."""

    def about(self, role: str) -> dict[str, Any]:
        """What exactly plays a role, for JSON: which files, which adapter."""

    def check(self, role: str) -> None:
        """Raise EdgegeoError, before any work, if it can't play a role: embed or generate."""

    def fault(self, text: str) -> str | None:
        """Why a text can't be read whole; None if it can."""

    def prepare(self, image: Image.Image) -> Any:
        """An upright RGB picture as `images` and `answers` take it; called in threads, ImageError if unusable."""

    def texts(self, texts: Sequence[str]) -> Vectors:
        """(N, dim) unit vectors."""

    def images(self, prepared: Sequence[Any]) -> Vectors:
        """(N, dim) unit vectors of prepared pictures."""

    def answers(self, prepared: Sequence[Any]) -> list[Said]:
        """One answer for each prepared picture."""


class BundleSubject:
    """A bundle, asked as the runtime asks it: greedy, with the grammar where it has one."""

    kind = "bundle"
    batch = 16

    def __init__(
        self, bundle: str | Path | Bundle | Model, threads: int | None = None, provider: str = "cpu", name: str = ""
    ) -> None:
        self._model = Model.open(bundle, threads, provider)
        self.name = name or self._model.bundle.path.name
        roles = self._model.bundle.manifest.roles
        self._embedder = Embedder(self._model) if roles.embed else None
        self._generator = Generator(self._model) if roles.generate else None

    def about(self, role: str) -> dict[str, Any]:
        """The bundle, its fingerprint and its precision."""
        bundle = self._model.bundle
        parts = {name: one.precision for name, one in bundle.manifest.components.items()}
        return {"path": str(bundle.path), "fingerprint": bundle.fingerprint, "precision": parts}

    def check(self, role: str) -> None:
        """BundleError if the bundle lacks the role."""
        if role == "embed" and self._embedder is None:
            Embedder(self._model)
        if role == "generate" and self._generator is None:
            Generator(self._model)

    def fault(self, text: str) -> str | None:
        """Why a text can't be read whole."""
        assert self._embedder is not None
        try:
            self._embedder.ids(text)
        except InputError as error:
            return str(error)
        return None

    def prepare(self, image: Image.Image) -> Any:
        """Resized and normalised, as the vision tower takes it."""
        return prepare_picture(image, self._model.bundle.manifest.image)

    def texts(self, texts: Sequence[str]) -> Vectors:
        """(N, dim) unit vectors."""
        assert self._embedder is not None
        return self._embedder.texts(texts)

    def images(self, prepared: Sequence[Any]) -> Vectors:
        """(N, dim) unit vectors."""
        assert self._embedder is not None
        return self._embedder.features(self._model.features(self._embedder.role.vision, prepared))

    def answers(self, prepared: Sequence[Any]) -> list[Said]:
        """Greedy answers."""
        assert self._generator is not None
        found = self._generator.features(self._model.features(self._generator.role.vision, prepared))
        return [(one.text, one.position) for one in found]
