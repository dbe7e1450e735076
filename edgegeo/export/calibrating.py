"""Recorded activations for an export: from a file, or recorded now on the checkpoint's own float graphs."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgegeo.bundle import Bundle, Component
from edgegeo.calibration import Calibration, Statistics, describe_samples
from edgegeo.calibration.calibrate import MOMENTS, Opened, Piece, Plan, calibrate, renumbered
from edgegeo.calibration.samples import Sample, SampleManifest
from edgegeo.errors import InputError
from edgegeo.export import components, pack
from edgegeo.export.components import Layout, Part
from edgegeo.export.exposed import identity
from edgegeo.export.graph import FLOAT, weights_to
from edgegeo.export.linear import BITS, Storage
from edgegeo.export.source import Source
from edgegeo.export.trunk import build_trunk
from edgegeo.export.windows import spans, window
from edgegeo.models.checkpoint import AnswerForm
from edgegeo.progress import Progress, silent
from edgegeo.recipe import Recipe, preset
from edgegeo.runtime import Model, open_session
from edgegeo.schema import to_plain

RECORDED = "calibration"
"""Folder of what an export records for itself, until its graphs are written."""
STATES = "hidden_states.sum"
"""What a decoder's final norm is given: a window's own result."""


class SourceGraphs:
    """Float graphs of an opened checkpoint; a decoder's layers stand a window at a time, at most 1 GiB of them."""

    def __init__(self, plan: Layout, folder: Path) -> None:
        self.plan, self.folder = plan, folder

    def pieces(self, component: str) -> Sequence[Piece]:
        """Windows of a decoder; any other component whole."""
        part = self.plan.parts[component]
        if part.kind != "trunk":
            return (Piece(partial(self._open, part, 0, 0)),)
        return [Piece(partial(self._open, part, a, b), a, b - a) for a, b in spans(part.modules.text)]

    @contextmanager
    def _open(self, part: Part, first: int, past: int) -> Iterator[Opened]:
        place = self.folder / "float"
        file = place / f"{part.name}.onnx"
        try:
            with weights_to(file):
                if past:
                    graph = build_trunk(window(part.modules.text, first, past), Storage())
                    graph.output(STATES, FLOAT, ["batch", "asked", part.modules.text.config.hidden_size])
                else:
                    graph = components.build(part, Storage())
                graph.expose_layer_inputs()
            graph.save(file)
            layers = {renumbered(layer, first): tensor for layer, tensor in graph.layer_inputs.items()}
            yield Opened(open_session(file), layers, STATES)
        finally:
            shutil.rmtree(place, ignore_errors=True)


@dataclass(frozen=True)
class Chosen:
    """What an export is calibrated with: none of it, a file, or samples to record now."""

    given: Calibration | None = None
    samples: Sequence[Sample] = ()
    manifest: SampleManifest | None = None


@dataclass(frozen=True)
class Known:
    """Statistics of the components that a recipe needs them for, and what the manifest says of them."""

    statistics: dict[str, Statistics] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report has to say of it in words."""
        return ("calibrated on random data: fit for trying tools, not for use",) if self.said.get("random") else ()


def known(
    source: Source, recipe: Recipe, plan: Layout, chosen: Chosen, folder: Path, progress: Progress = silent
) -> Known:
    """The statistics that `recipe` asks for; InputError for a file of other weights or without what is needed.

    folder: where float graphs and recorded activations may stand for the time being.
    """
    if chosen.given is not None:
        chosen.given.require(identity(source.facts), to_plain(source.checkpoint.image))
        if not recipe.calibrated:
            raise InputError(
                f"recipe {recipe.name} needs no calibration; leave --calibration out, or set *_activations = 'static', "
                "rounding = 'gptq', smooth or kv = 'int8' in a recipe"
            )
    if not recipe.calibrated:
        return Known()
    found = chosen.given or record(
        source, plan, chosen, folder / RECORDED / "statistics.json",
        moments=_kinds(recipe) if recipe.rounding == "gptq" else (), progress=progress,
    )  # fmt: skip
    return Known({name: found[name] for name in plan.parts}, found.said())


def record(
    source: Source, plan: Layout, chosen: Chosen, out: Path, moments: tuple[str, ...] = MOMENTS, random: bool = False,
    progress: Progress = silent,
) -> Calibration:  # fmt: skip
    """Run the float graphs of a checkpoint over samples and write the calibration file `out`."""
    place = out.with_suffix(".graphs")
    shutil.rmtree(place, ignore_errors=True)
    try:
        asked = Model(_prompts(source, plan, place / "bundle"))
        form = source.checkpoint.settings.answer
        manifest = chosen.manifest or describe_samples(chosen.samples, "validation", _seed(source))
        told = Plan(
            source.name, identity(source.facts), chosen.samples, manifest, partial(answer_of, form=form), random,
            moments,
            tools=pack.tool_versions(),
        )  # fmt: skip
        return calibrate(asked, SourceGraphs(plan, place), told, out, progress)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def answer_of(sample: Sample, form: AnswerForm) -> str:
    """How a checkpoint writes where a sample lies; "" for a sample without a position."""
    lat, lon = getattr(sample, "lat", None), getattr(sample, "lon", None)
    if lat is None or lon is None:
        return ""
    d = form.decimals
    signed = form.form == "fixed"
    width = d + 1 if d else 0
    said = (f"{lat:+0{3 + width}.{d}f}, {lon:+0{4 + width}.{d}f}") if signed else f"{lat:.{d}f}, {lon:.{d}f}"
    return f"{form.lead}<answer>{said}</answer>"


def _prompts(source: Source, plan: Layout, folder: Path) -> Bundle:
    """A bundle without graphs: tokens, prompts and picture preprocessing are all that is asked of it."""
    folder.mkdir(parents=True)
    recipe = preset("fp32")
    pack.write_arrays(source, replace(recipe, embeddings="fp16"), folder)
    pack.copy_files(source, folder)
    output = "image_embeds" if source.checkpoint.family.text else ""
    parts = {
        name: Component(part.kind, f"onnx/{name}.onnx", "fp32", output if part.kind == "vision" else "")
        for name, part in plan.parts.items()
    }
    return pack.draft(folder, pack.manifest(source, recipe, plan, parts, {}))


def _kinds(recipe: Recipe) -> tuple[str, ...]:
    """Kinds of components that may hold blocks."""
    blocks = {pattern for pattern, stored in recipe.layers.items() if stored in BITS}
    tower = recipe.vision in BITS or any(pattern.startswith(("vision", "*", "?", "[")) for pattern in blocks)
    return (*MOMENTS, "vision") if tower else MOMENTS


def _seed(source: Source) -> int:
    return source.checkpoint.settings.planet_seed or 0
