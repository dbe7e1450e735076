"""Which graphs a bundle holds, which roles share them, and their files on disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgegeo.bundle import Component
from edgegeo.export.graph import Graph, save
from edgegeo.export.head import build_head
from edgegeo.export.linear import Storage
from edgegeo.export.source import Source, weights_hash
from edgegeo.export.trunk import build_trunk
from edgegeo.export.vision import build_vision
from edgegeo.recipe import Recipe

STEMS = {"vision": "vision_encoder", "trunk": "decoder_model_merged", "head": "lm_head"}
SUFFIXES = {"fp32": "", "fp16": "_fp16", "int8": "_int8", "int4": "_q4"}
"""File names as in Hugging Face repositories of ONNX multimodal models."""

KINDS_OF_ROLE = {"embed": ("vision", "trunk"), "rerank": ("vision", "trunk"), "generate": ("vision", "trunk", "head")}

Ranges = Mapping[str, Mapping[str, tuple[float, float]]]
"""Component name -> layer name -> calibrated (low, high) of the layer's input."""


@dataclass(frozen=True)
class Part:
    """One component before it is written."""

    name: str
    kind: str
    model: Any
    """The model whose weights it holds."""


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
    # The unadapted roles first, so that what an adapter left alone is found under its plain name.
    for role, one in sorted(source.roles.items(), key=lambda item: item[1].model is not source.checkpoint.model):
        roles[role] = {}
        for kind in KINDS_OF_ROLE[role]:
            key = (kind, weights_hash(module(kind, one.model)))
            if key not in by_weights:
                name = f"{kind}_{role}" if any(p.kind == kind for p in parts.values()) else kind
                by_weights[key] = name
                parts[name] = Part(name, kind, one.model)
            roles[role][kind] = by_weights[key]
    return Layout(parts, roles)


def storage(kind: str, recipe: Recipe, ranges: Mapping[str, tuple[float, float]] | None = None) -> Storage:
    """How the matrices of a component of this kind are stored under a recipe."""
    return Storage(
        precision=getattr(recipe, kind), block_size=recipe.block_size, accuracy_level=recipe.accuracy_level,
        ranges=ranges or {},
    )  # fmt: skip


def build(part: Part, how: Storage) -> Graph:
    """The graph of a part."""
    if part.kind == "vision":
        return build_vision(part.model.model, how)
    if part.kind == "trunk":
        return build_trunk(part.model.model.text_model, how)
    return build_head(part.model.lm_head, how)


def write(part: Part, recipe: Recipe, folder: Path, ranges: Ranges | None = None) -> Component:
    """Build a part and save it under `folder`/onnx; returns its manifest entry."""
    precision = getattr(recipe, part.kind)
    tail = part.name.removeprefix(part.kind)
    file = f"onnx/{STEMS[part.kind]}{tail}{SUFFIXES[precision]}.onnx"
    save(build(part, storage(part.kind, recipe, (ranges or {}).get(part.name))).model(), folder / file)
    return Component(part.kind, file, precision)


def module(kind: str, model: Any) -> Any:
    """The torch modules whose weights a component of this kind holds."""
    import torch

    if kind == "trunk":
        return torch.nn.ModuleList([model.model.text_model.layers, model.model.text_model.norm])
    if kind == "head":
        return model.lm_head
    return torch.nn.ModuleList([model.model.vision_model, model.model.connector])
