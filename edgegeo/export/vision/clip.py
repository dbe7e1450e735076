"""CLIP's vision tower and projection as an ONNX graph built straight from the weights.

pixel_values (B, 3, size, size) float32 -> image_embeds (B, dim) float32, not normalised
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import ImageSpec
from edgegeo.export.encoder import add_norm, dense, encode
from edgegeo.export.graph import FLOAT, Graph, array
from edgegeo.export.linear import Storage
from edgegeo.export.vision.siglip import check
from edgegeo.models.family import Parts


def build(parts: Parts, config: Any, spec: ImageSpec, storage: Storage, dialect: str = "ort") -> Graph:
    """Graph of `parts.vision` (CLIPVisionModel) and `parts.connector` (its projection) for pictures of `spec.size`.

    config: CLIPConfig. CheckpointError for a tower it does not reproduce.
    """
    vision, tower, size = parts.vision, config.vision_config, spec.size
    check(tower, size)
    graph = Graph("vision_encoder", dialect, storage.precision)
    pixels = graph.input("pixel_values", FLOAT, ["batch", tower.num_channels, size, size])
    patch = graph.weight("patch.weight", array(vision.embeddings.patch_embedding.weight))
    graph.node("Conv", [pixels, patch], "patches", strides=[tower.patch_size] * 2)
    flat = graph.integers("shape_flat", [0, tower.hidden_size, (size // tower.patch_size) ** 2])
    graph.node("Reshape", ["patches", flat], "patches_flat")
    graph.node("Transpose", ["patches_flat"], "patches_rows", perm=[0, 2, 1])
    rows = _constant_rows(vision, tower, size)
    placed = graph.node("Add", ["patches_rows", graph.weight("positions", rows[:, 1:])], "patches_placed")
    token = expand_rows(graph, pixels, graph.weight("class_token", rows[:, :1]), tower.hidden_size, "class_tokens")
    joined = graph.node("Concat", [token, placed], "embeddings", axis=1)
    states, _ = add_norm(graph, "", joined, vision.pre_layrnorm, "pre_norm")
    zero = graph.integers("class_row", 0)

    def pick(x: str, name: str) -> str:
        return graph.node("Gather", [x, zero], name, axis=1)

    branch, residual = encode(graph, vision.encoder.layers, tower, states, storage, pick=pick)
    pooled, _ = add_norm(graph, branch, residual, vision.post_layernorm, "post_norm")
    dense(graph, pooled, parts.connector, "image_embeds", storage)
    graph.output("image_embeds", FLOAT, ["batch", parts.connector.out_features])
    return graph


def expand_rows(graph: Graph, batched: str, row: str, hidden: int, name: str) -> str:
    """A constant row (1, 1, H) once for every picture of `batched`: (B, 1, H)."""
    count = graph.node("Shape", [batched], f"{name}.batch", start=0, end=1)
    shape = graph.node("Concat", [count, graph.integers("one_row", [1, hidden])], f"{name}.shape", axis=0)
    return graph.node("Expand", [row, shape], name)


def _constant_rows(vision: Any, config: Any, size: int) -> NDArray[np.float32]:
    """What the embedding adds to the patches, class token first (1, 1 + patches, H): its output for a black picture.

    Asked from the module, which interpolates its positions where `size` is not the checkpoint's own.
    """
    import torch

    with torch.no_grad():
        black = torch.zeros(1, config.num_channels, size, size, dtype=vision.embeddings.patch_embedding.weight.dtype)
        return array(vision.embeddings(black, interpolate_pos_encoding=size != config.image_size))
