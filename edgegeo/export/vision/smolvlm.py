"""SmolVLM and Idefics3: a SigLIP tower, then pixel shuffle and a projection.

pixel_values (tiles, 3, size, size) float32 -> image_features (tiles, tokens, text hidden) float32
"""

from typing import Any

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError
from edgegeo.export.encoder import dense
from edgegeo.export.graph import FLOAT, Graph
from edgegeo.export.linear import Storage
from edgegeo.export.vision.siglip import encoder


def build(parts: Any, config: Any, spec: ImageSpec, storage: Storage, dialect: str = "ort") -> Graph:
    """Graph of `parts.vision` and `parts.connector` for tiles of `spec.size`; CheckpointError for unknown kinds.

    config: SmolVLMConfig or Idefics3Config.
    """
    vision, shrink = config.vision_config, int(config.scale_factor)
    side = spec.size // vision.patch_size
    if side % shrink:
        raise CheckpointError(
            f"{spec.size} px make {side} patches a side, which the pixel shuffle can't join by {shrink}; "
            f"choose a multiple of {vision.patch_size * shrink} px"
        )
    graph = Graph("vision_encoder", dialect, storage.precision)
    states = encoder(graph, parts.vision, vision, spec.size, storage)
    _connector(graph, parts.connector, states, side, vision.hidden_size, storage)
    return graph


def _connector(graph: Graph, module: Any, x: str, side: int, hidden: int, storage: Storage) -> None:
    """Pixel shuffle (Shi et al. 2016, space to depth) and projection: r x r neighbouring patches become one token."""
    r, projection = module.scale_factor, module.modality_projection.proj
    graph.node("Reshape", [x, graph.integers("shape_grid", [0, side // r, r, side // r, r * hidden])], "grid")
    graph.node("Transpose", ["grid"], "grid_shuffled", perm=[0, 1, 3, 2, 4])
    tokens = (side // r) ** 2
    graph.node("Reshape", ["grid_shuffled", graph.integers("shape_tokens", [0, tokens, r * r * hidden])], "shuffled")
    dense(graph, "shuffled", projection, "image_features", storage)
    graph.output("image_features", FLOAT, ["batch", tokens, projection.out_features])
