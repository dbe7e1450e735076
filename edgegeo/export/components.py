"""Which graphs a bundle holds, which roles share them, and their files on disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgegeo.bundle import Component, ImageSpec
from edgegeo.calibration import Statistics
from edgegeo.export import lint
from edgegeo.export.equalising import equalised_ranges, equalising
from edgegeo.export.graph import Graph, divided_by, weights_to
from edgegeo.export.head import build_head
from edgegeo.export.linear import Storage
from edgegeo.export.source import Source, base_tensors, weights_hash
from edgegeo.export.text_encoder import build_text
from edgegeo.export.trunk import build_trunk
from edgegeo.export.vision import build_vision
from edgegeo.models.family import Family, Parts
from edgegeo.recipe import DIALECTS, PRECISIONS, Recipe

STEMS = {"vision": "vision_encoder", "trunk": "decoder_model_merged", "head": "lm_head", "text": "text_model"}
SUFFIXES = {
    "fp32": "", "fp16": "_fp16", "bf16": "_bf16", "int8": "_int8", "int8-blocks": "_q8", "int4": "_q4", "nf4": "_bnb4",
    "int3": "_q3", "int2": "_q2",
}  # fmt: skip
"""File names as in Hugging Face repositories of ONNX multimodal models."""

KINDS_OF_ROLE = {"embed": ("vision", "trunk"), "rerank": ("vision", "trunk"), "generate": ("vision", "trunk", "head")}
KINDS_OF_DUAL = {"embed": ("vision", "text")}

Ranges = Mapping[str, Statistics]
"""Component name -> what its layers were seen to multiply."""


@dataclass(frozen=True)
class Part:
    """One component before it is written."""

    name: str
    kind: str
    model: Any
    """The model whose weights it holds."""
    family: Family
    image: ImageSpec
    """What the model sees of a picture."""

    @property
    def modules(self) -> Parts:
        """The model's modules."""
        return self.family.parts(self.model)


@dataclass(frozen=True)
class Layout:
    """All parts of a bundle and, for each role, the name of its part of each kind."""

    parts: dict[str, Part]
    roles: dict[str, dict[str, str]]


def layout(source: Source) -> Layout:
    """Plan the components: parts with equal weights are written once and shared.

    The first part of a kind has a plain name ("trunk"), a further one carries its role ("trunk_generate").
    """
    parts: dict[str, Part] = {}
    by_weights: dict[tuple[str, str], str] = {}
    roles: dict[str, dict[str, str]] = {}
    base = base_tensors(source.checkpoint.model)
    kinds = KINDS_OF_DUAL if source.checkpoint.family.text else KINDS_OF_ROLE
    # The unadapted roles first, so that what an adapter left alone is found under its plain name.
    for role, one in sorted(source.roles.items(), key=lambda item: item[1].model is not source.checkpoint.model):
        roles[role] = {}
        for kind in kinds[role]:
            key = (kind, weights_hash(module(kind, source.checkpoint.family.parts(one.model)), base))
            if key not in by_weights:
                name = f"{kind}_{role}" if any(p.kind == kind for p in parts.values()) else kind
                by_weights[key] = name
                parts[name] = Part(name, kind, one.model, source.checkpoint.family, source.checkpoint.image)
            roles[role][kind] = by_weights[key]
    return Layout(parts, roles)


def precision(kind: str, recipe: Recipe) -> str:
    """Precision of a component; a dual encoder's text tower stands where others have their decoder."""
    return str(getattr(recipe, "trunk" if kind == "text" else kind))


def storage(kind: str, recipe: Recipe, seen: Statistics | None = None, name: str = "") -> Storage:
    """How the matrices of the component `name` (by default named as its kind) are stored under a recipe.

    seen: what its layers multiply, for whatever of the recipe is calibrated.
    """
    factors = equalising(seen, recipe.smooth, gated=kind == "trunk") if seen is not None else {}
    activations = getattr(recipe, f"{'trunk' if kind == 'text' else kind}_activations")
    static = seen is not None and activations == "static"
    return Storage(
        precision=precision(kind, recipe), block_size=recipe.block_size, accuracy_level=recipe.accuracy_level,
        ranges=equalised_ranges(seen, recipe.ranges, factors) if static and seen is not None else {},
        layers=recipe.layers, component=name or kind, rounding=recipe.rounding, statistics=seen or {}, factors=factors,
        kv=recipe.kv if kind == "trunk" else "fp32",
    )  # fmt: skip


def build(part: Part, how: Storage, table: str = "fp32", dialect: str = "ort") -> Graph:
    """The graph of a part; `table` is how a text tower stores its token embeddings."""
    if part.kind == "vision":
        return build_vision(part.family.vision, part.modules, part.model.config, part.image, how, dialect)
    if part.kind == "trunk":
        return build_trunk(part.modules.text, how, dialect)
    if part.kind == "text":
        return build_text(part.family.text, part.modules, how, table, dialect)
    return build_head(part.modules.head, how, dialect)


def write(part: Part, recipe: Recipe, folder: Path, ranges: Ranges | None = None) -> tuple[Component, tuple[str, ...]]:
    """Build a part and save it under `folder`/onnx; returns its manifest entry and the names of its matrices."""
    tail = part.name.removeprefix(part.kind)
    file = f"onnx/{STEMS[part.kind]}{tail}{SUFFIXES[precision(part.kind, recipe)]}.onnx"
    how = storage(part.kind, recipe, (ranges or {}).get(part.name), part.name)
    with weights_to(folder / file), divided_by(how.factors):
        graph = build(part, how, recipe.embeddings, DIALECTS[recipe.target])
    graph.save(folder / file)
    if graph.dialect == "trt":
        lint.require(folder / file, recipe.target)
    used = {name: how.of(name) for name in graph.layer_inputs}
    coarsest = max(used.values(), key=PRECISIONS.index, default=how.precision)
    output = "image_embeds" if part.family.text and part.kind == "vision" else ""
    others = {name: stored for name, stored in used.items() if stored != coarsest}
    return Component(part.kind, file, coarsest, output, others, how.kv), tuple(f"{part.name}.{name}" for name in used)


def module(kind: str, parts: Parts) -> Any:
    """The torch modules whose weights a component of this kind holds."""
    import torch

    if kind == "trunk":
        return torch.nn.ModuleList([parts.text.layers, parts.text.norm])
    if kind == "head":
        return parts.head
    if kind == "text":
        return torch.nn.ModuleList([part for part in (parts.text, parts.head) if part is not None])
    return torch.nn.ModuleList([part for part in (parts.vision, parts.connector) if part is not None])
