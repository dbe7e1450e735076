"""What one answer goes through: its clock, and its photos after every vision tower that was needed."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from edgegeo.runtime.image import Source, open_image
from edgegeo.runtime.model import Model
from edgegeo.runtime.pictures import ImageTokens, Picture, prepare_picture


@dataclass
class Clock:
    """Milliseconds by stage."""

    begun: float = field(default_factory=time.perf_counter)
    spent: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time inside to the stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent[name] = self.spent.get(name, 0.0) + (time.perf_counter() - start) * 1e3

    def finished(self) -> dict[str, float]:
        """Every stage, and the time since it began as "total"."""
        return {**self.spent, "total": (time.perf_counter() - self.begun) * 1e3}


class Vision:
    """Image tokens of the photos, computed once for every role that shares a vision tower."""

    def __init__(
        self, model: Model, clock: Clock, photos: Sequence[Source | Picture], picture: Picture | None = None
    ) -> None:
        """picture: the first photo, prepared already."""
        self._model, self._clock = model, clock
        self._done: dict[str, list[ImageTokens]] = {}
        self.images = []
        """Photos that were opened here; what came prepared is not seen any more."""
        self._pictures: list[Picture] = []
        for photo in photos:
            if isinstance(photo, Picture):
                self._pictures.append(photo)
                continue
            with clock.stage("decode"):
                image = open_image(photo)
            self.images.append(image)
            if picture is None or self._pictures:
                with clock.stage("preprocess"):
                    self._pictures.append(prepare_picture(image, model.bundle.manifest.image))
            else:
                self._pictures.append(picture)

    @property
    def given(self) -> bool:
        """Whether there is any photo."""
        return bool(self._pictures)

    @property
    def opened(self) -> bool:
        """Whether every photo was opened here."""
        return len(self.images) == len(self._pictures)

    def features(self, component: str) -> list[ImageTokens]:
        """Image tokens of all photos after one tower."""
        if component not in self._done:
            with self._clock.stage("vision"):
                self._done[component] = self._model.features(component, self._pictures)
        return self._done[component]
