"""Vision towers as ONNX graphs, one file per architecture; each has `build` with the arguments of `build_vision`."""

from importlib import import_module
from typing import Any

from edgegeo.bundle import ImageSpec
from edgegeo.export.graph import Graph
from edgegeo.export.linear import Storage
from edgegeo.models.family import Parts


def build_vision(
    architecture: str, parts: Parts, config: Any, spec: ImageSpec, storage: Storage, dialect: str = "ort"
) -> Graph:
    """Graph of a vision tower and its connector. `architecture`: `Family.vision`; config: the whole checkpoint's.

    Fixed tiles: pixel_values (batch, 3, H, W) -> image_features (batch, tokens, hidden), float32. Native resolution:
    the inputs of `Picture.inputs` -> image_features (tokens, hidden). CheckpointError for what it can't reproduce.
    """
    module = import_module(f"edgegeo.export.vision.{architecture}")
    graph: Graph = module.build(parts, config, spec, storage, dialect)
    return graph
