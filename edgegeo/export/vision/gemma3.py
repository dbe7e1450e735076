"""Gemma 3: a SigLIP tower, average pooling over squares of patches, RMS norm and a projection.

pixel_values (tiles, 3, size, size) float32 -> image_features (tiles, tokens, text hidden) float32
"""

from typing import Any

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError
from edgegeo.export.blocks import rms_norm
from edgegeo.export.graph import FLOAT, Graph, array
from edgegeo.export.linear import Storage, linear
from edgegeo.export.vision.siglip import encoder


def build(parts: Any, config: Any, spec: ImageSpec, storage: Storage, dialect: str = "ort") -> Graph:
    """Graph of `parts.vision` and `parts.connector` (Gemma3MultiModalProjector) for tiles of `spec.size`.

    config: Gemma3Config. CheckpointError for another size than the checkpoint's: the projector pools a fixed grid.
    """
    vision, module = config.vision_config, parts.connector
    if spec.size != vision.image_size:
        raise CheckpointError(
            f"Gemma 3 sees tiles of {vision.image_size} px only, not {spec.size}: its projector pools a fixed grid; "
            "lower the number of tiles instead"
        )
    graph = Graph("vision_encoder", dialect, storage.precision)
    states = encoder(graph, parts.vision, vision, spec.size, storage)
    pooled = _pool(graph, states, module, vision.hidden_size)
    norm = module.mm_soft_emb_norm
    # The weight is stored as its difference from one.
    normed = rms_norm(graph, pooled, 1.0 + array(norm.weight), "projector.norm", float(norm.eps))
    weight = array(module.mm_input_projection_weight)
    linear(graph, normed, weight, None, "image_features", storage)
    graph.output("image_features", FLOAT, ["batch", module.tokens_per_side**2, weight.shape[1]])
    return graph


def _pool(graph: Graph, x: str, module: Any, hidden: int) -> str:
    """Means over k x k neighbouring patches: (B, patches, hidden) -> (B, tokens, hidden).

    Tokens and hidden stay in place, so the picture is never transposed to channels first as AvgPool2d wants it.
    """
    side, k = int(module.tokens_per_side), int(module.kernel_size)
    if side * k != module.patches_per_image:
        raise CheckpointError(
            f"the projector pools {module.patches_per_image} patches a side to {side} tokens a side, which leaves a "
            "rest; this version can't export it"
        )
    graph.node("Reshape", [x, graph.integers("shape_squares", [0, side, k, side, k, hidden])], "squares")
    graph.node("ReduceMean", ["squares", graph.integers("square_axes", [2, 4])], "squares_mean", keepdims=0)
    return graph.node("Reshape", ["squares_mean", graph.integers("shape_tokens", [0, side * side, hidden])], "pooled")
