"""The vision tower and its connector as an ONNX graph built straight from the weights: SigLIP ViT + pixel shuffle.

    pixel_values (B, 3, H, W) float32 -> image_features (B, tokens, text hidden) float32

Fixed square size, all patches valid: edgegeo feeds one whole picture, never padded tiles.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import CheckpointError
from edgegeo.export.graph import FLOAT, MICROSOFT, Graph
from edgegeo.export.linear import Storage, linear
from edgegeo.export.trunk import array


def build_vision(model: Any, storage: Storage) -> Graph:
    """Graph of the vision_model and connector of a transformers SmolVLMModel; CheckpointError for other kinds."""
    vision, config = model.vision_model, model.config.vision_config
    _check(config, model.config.scale_factor)
    side = config.image_size // config.patch_size
    hidden, epsilon = config.hidden_size, config.layer_norm_eps
    graph = Graph("vision_encoder")
    pixels = graph.input("pixel_values", FLOAT, ["batch", config.num_channels, config.image_size, config.image_size])
    patch = graph.weight("patch.weight", array(vision.embeddings.patch_embedding.weight))
    graph.node("Conv", [pixels, patch], "patches", strides=[config.patch_size] * 2)
    graph.node("Reshape", ["patches", graph.integers("shape_flat", [0, hidden, side * side])], "patches_flat")
    graph.node("Transpose", ["patches_flat"], "patches_rows", perm=[0, 2, 1])
    graph.weight("positions", _positions(vision, config))
    residual, branch = graph.node("Add", ["patches_rows", "positions"], "embeddings"), ""
    for index, layer in enumerate(vision.encoder.layers):
        name = f"layers.{index}"
        normed, residual = _norm(graph, layer.layer_norm1, f"{name}.norm1", branch, residual, epsilon)
        branch = _attention(graph, layer.self_attn, name, normed, config.num_attention_heads, storage)
        normed, residual = _norm(graph, layer.layer_norm2, f"{name}.norm2", branch, residual, epsilon)
        fc1 = _linear(graph, normed, layer.mlp.fc1, f"{name}.fc1", storage)
        # Tanh GELU in one operator; the erf form would be off by 4e-4 (SigLIP uses gelu_pytorch_tanh).
        gelu = graph.node("FastGelu", [fc1], f"{name}.gelu", MICROSOFT)
        branch = _linear(graph, gelu, layer.mlp.fc2, f"{name}.fc2", storage)
    normed, _ = _norm(graph, vision.post_layernorm, "post_norm", branch, residual, epsilon)
    _connector(graph, model.connector, normed, side, hidden, storage)
    return graph


def _check(config: Any, scale: int) -> None:
    faults = []
    if config.hidden_act != "gelu_pytorch_tanh":
        faults.append(f"activation '{config.hidden_act}'")
    if not isinstance(config.image_size, int) or not isinstance(config.patch_size, int):
        faults.append(f"a picture of {config.image_size} in patches of {config.patch_size}")
    elif (config.image_size // config.patch_size) % scale or config.image_size % config.patch_size:
        faults.append(f"{config.image_size} px in patches of {config.patch_size} shuffled by {scale}")
    if faults:
        raise CheckpointError(
            f"the vision tower uses {', '.join(faults)}, which this version can't export; "
            "it exports SigLIP towers with tanh GELU on whole square pictures (SmolVLM, Idefics3)"
        )


def _positions(vision: Any, config: Any) -> NDArray[np.float32]:
    """Patch bias plus position embedding (1, patches, hidden), as the model's own embedding adds them to a black image.

    Asked from the module instead of recomputed: it buckets fractional coordinates in float32, and its rounding is
    part of the checkpoint.
    """
    import torch

    size, side = config.image_size, config.image_size // config.patch_size
    with torch.no_grad():
        black = torch.zeros(1, config.num_channels, size, size, dtype=vision.embeddings.patch_embedding.weight.dtype)
        return array(vision.embeddings(black, torch.ones(1, side, side, dtype=torch.bool)))


def _linear(graph: Graph, x: str, module: Any, name: str, storage: Storage) -> str:
    bias = array(module.bias) if module.bias is not None else None
    return linear(graph, x, array(module.weight).T, bias, name, storage)


def _attention(graph: Graph, module: Any, name: str, x: str, heads: int, storage: Storage) -> str:
    projections = [module.q_proj, module.k_proj, module.v_proj]
    weight = np.concatenate([array(p.weight).T for p in projections], axis=1)
    bias = np.concatenate([array(p.bias) for p in projections])
    qkv = linear(graph, x, weight, bias, f"{name}.qkv", storage)
    parts = [f"{name}.query", f"{name}.key", f"{name}.value"]
    graph.node("Split", [qkv], parts, axis=-1, num_outputs=3)
    attended = graph.node(
        "MultiHeadAttention", parts, f"{name}.attended", MICROSOFT, num_heads=heads, scale=float(module.scale)
    )
    return _linear(graph, attended, module.out_proj, f"{name}.out", storage)


def _norm(graph: Graph, module: Any, name: str, branch: str, residual: str, epsilon: float) -> tuple[str, str]:
    """Layer norm of branch + residual; returns (normed, their sum). The very first norm has no branch yet."""
    gamma = graph.weight(f"{name}.weight", array(module.weight))
    beta = graph.weight(f"{name}.bias", array(module.bias))
    if not branch:
        return graph.node("LayerNormalization", [residual, gamma, beta], name, axis=-1, epsilon=epsilon), residual
    # Not SkipLayerNormalization, and not Add, which onnxruntime would fuse into it: its CPU kernel takes 6 times as
    # long as Sum and LayerNormalization together (onnxruntime 1.31), a quarter of the whole int8 tower.
    total = graph.node("Sum", [branch, residual], f"{name}.sum")
    return graph.node("LayerNormalization", [total, gamma, beta], name, axis=-1, epsilon=epsilon), total


def _connector(graph: Graph, module: Any, x: str, side: int, hidden: int, storage: Storage) -> None:
    """Pixel shuffle (Shi et al. 2016, space to depth) and projection: r x r neighbouring patches become one token."""
    r = module.scale_factor
    graph.node("Reshape", [x, graph.integers("shape_grid", [0, side // r, r, side // r, r * hidden])], "grid")
    graph.node("Transpose", ["grid"], "grid_shuffled", perm=[0, 1, 3, 2, 4])
    tokens = (side // r) ** 2
    graph.node("Reshape", ["grid_shuffled", graph.integers("shape_tokens", [0, tokens, r * r * hidden])], "shuffled")
    _linear(graph, "shuffled", module.modality_projection.proj, "image_features", storage)
    graph.output("image_features", FLOAT, ["batch", tokens, module.modality_projection.proj.out_features])
