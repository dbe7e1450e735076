"""Where the time of a job goes: a clock that the model's parts report to while it runs, and cost nothing otherwise."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from edgegeo.bundle import Bundle
from edgegeo.runtime.image import Source, open_image
from edgegeo.runtime.model import Model
from edgegeo.runtime.pictures import ImageTokens, Picture, prepare_picture
from edgegeo.runtime.trunk import Floats, Ints, TrunkInput

STAGES = ("decode", "preprocess", "vision", "trunk", "head", "search", "rerank", "generate", "other")
"""In the order they happen. trunk: the decoder's passes (in a dual encoder the text tower's); generate, in `locate`
only: trunk and head of the answer; other: tokenizing, assembling, grammar, fusion, Python."""
_STAGE_OF_KIND = {"vision": "vision", "trunk": "trunk", "text": "trunk", "head": "head"}


class StageClock:
    """Seconds by stage while it is on; of nested stages the outermost counts."""

    def __init__(self) -> None:
        self.on = False
        self.seconds: dict[str, float] = {}
        self.set_aside = 0.0
        """Seconds spent on telling stages apart, which belong to none."""
        self._inside = False

    def add(self, stage: str, seconds: float) -> None:
        """Put seconds to a stage's account."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        if not self.on or self._inside:
            yield
            return
        self._inside = True
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)
            self._inside = False

    def breakdown(self, job: Callable[[], object], runs: int) -> dict[str, float]:
        """Mean milliseconds of each stage over some runs of a job, "other" for what no stage claims."""
        self.seconds, self.set_aside, self.on = {}, 0.0, True
        start = time.perf_counter()
        for _ in range(runs):
            job()
        whole = time.perf_counter() - start - self.set_aside
        self.on = False
        found = {**self.seconds, "other": max(0.0, whole - sum(self.seconds.values()))}
        return {stage: 1e3 * found[stage] / runs for stage in STAGES if stage in found}


class TimedSession:
    """An onnxruntime session that reports its runs to a clock."""

    def __init__(self, session: Any, clock: StageClock, stage: str) -> None:
        self._session, self._clock, self._stage = session, clock, stage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, *words: Any, **more: Any) -> Any:
        """As the session's own."""
        with self._clock.stage(self._stage):
            return self._session.run(*words, **more)

    def run_with_iobinding(self, *words: Any, **more: Any) -> Any:
        """As the session's own."""
        with self._clock.stage(self._stage):
            return self._session.run_with_iobinding(*words, **more)


class TimedModel(Model):
    """A model whose decoding, preprocessing and sessions report to a clock."""

    def __init__(self, bundle: Bundle, clock: StageClock, threads: int | None, provider: str) -> None:
        super().__init__(bundle, threads, provider)
        self.clock = clock
        self._timed: dict[str, TimedSession] = {}

    def session(self, component: str) -> Any:
        """The session of a component, timed."""
        if component not in self._timed:
            kind = self.bundle.manifest.components[component].kind
            self._timed[component] = TimedSession(super().session(component), self.clock, _STAGE_OF_KIND[kind])
        return self._timed[component]

    def features(self, component: str, pictures: Sequence[Picture]) -> list[ImageTokens]:
        """As the model's own; runs side by side count once."""
        self.session(component)
        with self.clock.stage("vision"):
            return super().features(component, pictures)

    def hidden(self, component: str, prompts: TrunkInput, positions: Ints) -> Floats:
        """As the model's own; runs side by side count once."""
        self.session(component)
        with self.clock.stage("trunk"):
            return super().hidden(component, prompts, positions)

    def prepare(self, images: Sequence[Source]) -> list[Picture]:
        """As the model's own; of a batch, which several threads prepare, the first picture says how time is shared."""
        if not self.clock.on:
            return super().prepare(images)
        start = time.perf_counter()
        made = super().prepare(images)
        took = time.perf_counter() - start
        begun = time.perf_counter()
        image = open_image(images[0])
        opened = time.perf_counter()
        prepare_picture(image, self.bundle.manifest.image)
        done = time.perf_counter()
        share = (opened - begun) / (done - begun)
        self.clock.add("decode", took * share)
        self.clock.add("preprocess", took * (1 - share))
        self.clock.set_aside += done - begun
        return made
