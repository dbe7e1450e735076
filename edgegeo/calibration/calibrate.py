"""Calibration of a whole model: every float graph run over the samples through the runtime, layer statistics out."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgegeo.calibration.prompts import Answers, Asked, Material, Shown, prompts_of, texts_of
from edgegeo.calibration.ranges import all_ranges
from edgegeo.calibration.recorder import Feed, Recorder
from edgegeo.calibration.samples import Sample, SampleManifest
from edgegeo.calibration.statistics import (
    SCHEMA_VERSION,
    Calibration,
    CalibrationRecord,
    LayerRecord,
    write_calibration,
)
from edgegeo.progress import Progress, silent
from edgegeo.runtime import ImageTokens, Model
from edgegeo.runtime.trunk import Floats, Trunk
from edgegeo.schema import to_plain

MOMENTS = ("trunk", "head", "text")
"""Kinds of components whose second moments are kept unless told otherwise: those that recipes store at 4 bits."""


@dataclass(frozen=True)
class Piece:
    """A float graph: a whole component, or neighbouring layers of a decoder too large to stand whole."""

    open: Callable[[], AbstractContextManager["Opened"]]
    first: int = 0
    """Number of its first decoder layer."""
    layers: int = 0
    """How many decoder layers it has; 0 outside decoders."""


@dataclass(frozen=True)
class Opened:
    """A piece as a session."""

    session: Any
    watched: Mapping[str, str]
    """Layer, named as in the whole graph -> the session's output that is its input."""
    states: str = ""
    """Output with the states that the next piece is fed."""


class Graphs(Protocol):
    """Where float graphs come from."""

    def pieces(self, component: str) -> Sequence[Piece]:
        """The pieces of a component in the order they compute."""


@dataclass(frozen=True)
class Plan:
    """What is calibrated on what."""

    name: str
    weights: str
    """Identifies the weights, see `CalibrationRecord`."""
    samples: Sequence[Sample]
    manifest: SampleManifest
    answers: Answers
    random: bool = False
    moments: tuple[str, ...] = MOMENTS
    """Kinds of components whose second moments are kept, for GPTQ; ranges and equalisation do without."""
    tools: Mapping[str, str] = field(default_factory=dict)


def calibrate(model: Model, graphs: Graphs, plan: Plan, out: Path, progress: Progress = silent) -> Calibration:
    """Record every component and write the file `out` with its arrays beside it.

    model: a bundle of the same checkpoint, asked for prompts, tokens and picture preprocessing only. What is done is
    kept in `out`.work until the end, so that the same call goes on where it was killed.
    """
    image = to_plain(model.bundle.manifest.image)
    key = {
        "weights": plan.weights, "samples": plan.manifest.sha256, "image": image, "moments": sorted(plan.moments),
        "schema": SCHEMA_VERSION,
    }  # fmt: skip
    recorder = Recorder(out.with_suffix(".work"), key, progress)
    run = _Run(model, graphs, plan, recorder)
    run.all()
    found: dict[str, dict[str, LayerRecord]] = {}
    for done, name in enumerate(recorder.observers):
        component, _, layer = name.partition("/")
        seen = recorder.observer(name)
        low, high = (seen.histogram.low, seen.histogram.high) if seen.rows else (0.0, 0.0)
        found.setdefault(component, {})[layer] = LayerRecord(
            run.tensors[name], seen.rows, low, high, dict(all_ranges(seen.histogram))
        )
        progress("choose ranges", done + 1, len(recorder.observers))
    record = CalibrationRecord(
        SCHEMA_VERSION, plan.name, plan.weights, image, plan.manifest, plan.random, found, "", "", dict(plan.tools)
    )
    written = write_calibration(record, recorder.observers, out)
    recorder.remove()
    return written


@dataclass
class _Run:
    """The components in the order in which they feed each other."""

    model: Model
    graphs: Graphs
    plan: Plan
    recorder: Recorder
    tensors: dict[str, str] = field(default_factory=dict)
    """COMPONENT/LAYER -> name of its input in the whole graph."""

    def all(self) -> None:
        parts = self.model.bundle.manifest.components
        features = {name: self._vision(name) for name, part in parts.items() if part.kind == "vision"}
        material = Material(self.model, self.plan.samples, features, self.plan.answers)
        states: dict[str, list[Floats]] = {}
        for name, part in parts.items():
            if part.kind == "trunk":
                states[name] = self._trunk(name, prompts_of(material, name))
            elif part.kind == "text":
                self._simple(name, texts_of(material), part.kind)
        role = self.model.bundle.manifest.roles.generate
        if role is not None:
            fed = [{"hidden_states": one} for one in states[role.trunk]]
            self._simple(role.head, fed, "head")

    def _vision(self, name: str) -> dict[Shown, ImageTokens]:
        shown = [
            ((index, view), data)
            for index, one in enumerate(self.plan.samples)
            for view, data in (("photo", one.photo), ("tile", one.tile))
            if data
        ]
        output = self.model.bundle.manifest.components[name].output or "image_features"
        # Prepared twice, so that memory never holds the pixels of all pictures.
        made = [replace(self.model.prepare([data])[0], inputs={}) for _, data in shown]
        feeds = [partial(self._tiles, data) for _, data in shown]
        with self.graphs.pieces(name)[0].open() as opened:
            rows = self._record(name, opened, feeds, (output,), "vision")
        return {
            where: ImageTokens(one[0].reshape(-1, one[0].shape[-1]), picture.layout, picture.grid)
            for (where, _), one, picture in zip(shown, rows, made, strict=True)
        }

    def _tiles(self, data: bytes) -> list[Mapping[str, Any]]:
        """A run a tile, where pictures have tiles: all matrices' inputs come out at once."""
        inputs = self.model.prepare([data])[0].inputs
        if self.model.bundle.manifest.image.tokens == 0 or len(inputs) > 1:
            return [inputs]
        return [{key: value[at : at + 1]} for key, value in inputs.items() for at in range(len(value))]

    def _trunk(self, name: str, prompts: Sequence[Asked]) -> list[Floats]:
        """The final states at the positions of answers, (1, K, H) each."""
        pieces, spec = self.graphs.pieces(name), self.model.bundle.decoder
        states = [one.fed.embeds for one in prompts]
        for piece in pieces:
            with piece.open() as opened:
                trunk = Trunk(opened.session, replace(spec, layers=piece.layers))
                feeds = [partial(_prompt, trunk, one, rows) for one, rows in zip(prompts, states, strict=True)]
                last = piece is pieces[-1]
                out = "hidden_states" if last else opened.states
                label = name if len(pieces) == 1 else f"{name}.{piece.first}"
                states = [row[0] for row in self._record(name, opened, feeds, (out,), "trunk", label, piece)]
        return [rows[:, one.answer] for one, rows in zip(prompts, states, strict=True) if one.answer is not None]

    def _simple(self, name: str, feeds: Sequence[Mapping[str, Any]], kind: str) -> None:
        with self.graphs.pieces(name)[0].open() as opened:
            known = {one.name for one in opened.session.get_inputs()}
            fed = [[{key: value for key, value in one.items() if key in known}] for one in feeds]
            self._record(name, opened, [partial(list, one) for one in fed], (), kind)

    def _record(
        self, name: str, opened: Opened, feeds: Sequence[Feed], outputs: Sequence[str], kind: str,
        label: str = "", piece: Piece | None = None,
    ) -> list[list[Any]]:  # fmt: skip
        watched = {f"{name}/{layer}": tensor for layer, tensor in opened.watched.items()}
        if piece is not None:
            for number in range(piece.layers):
                for half in ("key", "value"):
                    watched[f"{name}/layers.{piece.first + number}.{half}"] = f"present.{number}.{half}"
        first = piece.first if piece else 0
        self.tensors |= {layer: renumbered(tensor, first) for layer, tensor in watched.items()}
        return self.recorder.record(label or name, opened.session, watched, feeds, outputs, kind in self.plan.moments)


def _prompt(trunk: Trunk, asked: Asked, states: Floats) -> list[Mapping[str, Any]]:
    return [trunk.feeds(replace(asked.fed, embeds=states), np.arange(states.shape[1])[None])]


def renumbered(name: str, first: int) -> str:
    """A layer's or tensor's name in the whole graph, from its name in one that begins with decoder layer `first`."""
    return re.sub(r"(?<![^.])(\d+)(?=\.)", lambda found: str(int(found[1]) + first), name, count=1) if first else name
