"""SigLIP vision towers as ONNX nodes, shared by SmolVLM, Gemma 3 and the dual encoders.

All patches are valid and every picture of a graph has one square size: edgegeo feeds whole squares, never padded ones.
"""

import inspect
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import CheckpointError
from edgegeo.export.encoder import add_norm, check_encoder, encode
from edgegeo.export.graph import FLOAT, Graph, array
from edgegeo.export.linear import Storage


def encoder(graph: Graph, vision: Any, config: Any, size: int, storage: Storage) -> str:
    """Add a whole tower and its input; returns the tensor of patch states (B, patches, hidden) after the last norm.

    vision: SiglipVisionModel, or the vision transformer of SmolVLM or Idefics3; config: its configuration. The graph
    gains the input `pixel_values` ("batch", channels, size, size) float32. Where `size` is not the checkpoint's own,
    the positions are what the module's own code makes of them. CheckpointError for a tower it would not reproduce.
    """
    check(config, size)
    side, hidden = size // config.patch_size, config.hidden_size
    pixels = graph.input("pixel_values", FLOAT, ["batch", config.num_channels, size, size])
    patch = graph.weight("patch.weight", array(vision.embeddings.patch_embedding.weight))
    graph.node("Conv", [pixels, patch], "patches", strides=[config.patch_size] * 2)
    graph.node("Reshape", ["patches", graph.integers("shape_flat", [0, hidden, side * side])], "patches_flat")
    graph.node("Transpose", ["patches_flat"], "patches_rows", perm=[0, 2, 1])
    graph.weight("positions", positions(vision, config, size))
    states = graph.node("Add", ["patches_rows", "positions"], "embeddings")
    branch, residual = encode(graph, vision.encoder.layers, config, states, storage)
    return add_norm(graph, branch, residual, vision.post_layernorm, "post_norm")[0]


def check(config: Any, size: int) -> None:
    """CheckpointError for a tower or a size that `encoder` would not compute as transformers does."""
    check_encoder(config, "the vision tower")
    faults = []
    if not isinstance(config.image_size, int) or not isinstance(config.patch_size, int):
        faults.append(f"pictures of {config.image_size} px in patches of {config.patch_size}")
    elif size <= 0 or size % config.patch_size:
        faults.append(f"pictures of {size} px, which patches of {config.patch_size} px don't fill")
    if faults:
        raise CheckpointError(
            f"the vision tower would get {', '.join(faults)}, which this version can't export; "
            "it exports SigLIP towers on whole square pictures (SmolVLM, Idefics3, Gemma 3)"
        )


def positions(vision: Any, config: Any, size: int) -> NDArray[np.float32]:
    """Patch bias plus position embedding (1, patches, hidden), as the model's own embedding adds them to a black image.

    Asked from the module instead of recomputed: SmolVLM buckets fractional coordinates in float32 and SigLIP
    interpolates bicubically for another size, and their rounding is part of the checkpoint.
    """
    import torch

    side, embeddings = size // config.patch_size, vision.embeddings
    with torch.no_grad():
        black = torch.zeros(1, config.num_channels, size, size, dtype=embeddings.patch_embedding.weight.dtype)
        if "patch_attention_mask" in inspect.signature(embeddings.forward).parameters:
            return array(embeddings(black, torch.ones(1, side, side, dtype=torch.bool)))
        return array(embeddings(black, interpolate_pos_encoding=size != config.image_size))
