"""InternViT, pixel shuffle and projector of InternVL as an ONNX graph built straight from the weights.

    pixel_values (tiles, 3, size, size) float32 -> image_features (tiles, tokens, text hidden) float32

As transformers 5.23 `InternVLModel.get_image_features` computes them, for square tiles of one size.
"""

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError
from edgegeo.export.blocks import (
    ACTIVATIONS,
    activation,
    full_attention,
    layer_norm,
    rms_norm,
    skip_layer_norm,
    skip_rms_norm,
)
from edgegeo.export.encoder import dense
from edgegeo.export.graph import FLOAT, Graph, array
from edgegeo.export.linear import Storage, linear

Array = NDArray[np.float32]


def build(parts: Any, config: Any, spec: ImageSpec, storage: Storage, dialect: str = "ort") -> Graph:
    """Graph of the vision tower and projector of an InternVLForConditionalGeneration.

    parts: vision (InternVLVisionModel) and connector (InternVLMultiModalProjector); config: InternVLConfig, whole.
    CheckpointError for settings that this file doesn't build.
    """
    vision, tower = config.vision_config, parts.vision
    _check(config, spec)
    graph = Graph("vision_encoder", dialect, storage.precision)
    pixels = graph.input("pixel_values", FLOAT, ["batch", vision.num_channels, spec.size, spec.size])
    residual, branch = _embeddings(graph, tower.embeddings, pixels, vision, spec.size), ""
    for index, layer in enumerate(tower.encoder.layer[: _layers(config)]):
        name = f"layers.{index}"
        normed, residual = _skip_norm(graph, branch, residual, layer.layernorm_before, f"{name}.norm1", vision)
        branch = _attention(graph, layer, normed, name, vision, storage)
        normed, residual = _skip_norm(graph, branch, residual, layer.layernorm_after, f"{name}.norm2", vision)
        fc1 = dense(graph, normed, layer.mlp.fc1, f"{name}.fc1", storage)
        active = activation(graph, fc1, f"{name}.active", ACTIVATIONS[vision.hidden_act])
        branch = _scaled_linear(graph, active, layer.mlp.fc2, layer.lambda_2, f"{name}.fc2", storage)
    states = graph.node("Add", [branch, residual], "states")
    if config.vision_feature_layer == -1 and not vision.use_mean_pooling:
        norm = tower.layernorm
        states = layer_norm(graph, states, array(norm.weight), array(norm.bias), "post_norm", norm.eps)
    _connector(graph, parts.connector, states, config, spec, storage)
    return graph


def _check(config: Any, spec: ImageSpec) -> None:
    vision, faults = config.vision_config, []
    for owner, name, value in (
        ("", "hidden_act", vision.hidden_act),
        ("projector ", "act", config.projector_hidden_act),
    ):
        if value not in ACTIVATIONS:
            faults.append(f"{owner}{name} '{value}'")
    if vision.norm_type not in ("layer_norm", "rms_norm"):
        faults.append(f"norm_type '{vision.norm_type}'")
    if len(set(vision.patch_size)) != 1:
        faults.append(f"patches of {vision.patch_size}")
    if len(set(vision.image_size)) != 1:
        faults.append(f"pictures of {vision.image_size}")
    if config.vision_feature_select_strategy != "default":
        faults.append(f"vision_feature_select_strategy '{config.vision_feature_select_strategy}'")
    if not isinstance(config.vision_feature_layer, int):
        faults.append(f"vision_feature_layer {config.vision_feature_layer}")
    elif not 0 < _layers(config) <= vision.num_hidden_layers:
        faults.append(f"vision_feature_layer {config.vision_feature_layer} of {vision.num_hidden_layers}")
    ratio = shuffle(config)
    if ratio < 1 or ratio * config.downsample_ratio != 1:
        faults.append(f"downsample_ratio {config.downsample_ratio}")
    elif spec.size % (vision.patch_size[0] * ratio):
        faults.append(f"{spec.size} px in patches of {vision.patch_size[0]} shuffled by {ratio}")
    if faults:
        raise CheckpointError(
            f"the vision tower uses {', '.join(faults)}, which this version can't export; it exports InternViT as "
            "in InternVL3 and InternVL3.5 (square patches, one feature layer without the class token)"
        )


def shuffle(config: Any) -> int:
    """How many patches a side become one token (pixel shuffle); 0 for a ratio that no whole number inverts."""
    return int(1 / config.downsample_ratio) if config.downsample_ratio > 0 else 0


def _layers(config: Any) -> int:
    """How many layers run: `vision_feature_layer` indexes [embeddings, layer 1, ..., layer n]."""
    index, depth = int(config.vision_feature_layer), int(config.vision_config.num_hidden_layers)
    return index if index >= 0 else depth + 1 + index


def _embeddings(graph: Graph, module: Any, pixels: str, vision: Any, size: int) -> str:
    """Class token and patches with their positions: (tiles, 1 + patches, hidden)."""
    patch, hidden = vision.patch_size[0], vision.hidden_size
    weight = graph.weight("patch.weight", array(module.patch_embeddings.projection.weight))
    graph.node("Conv", [pixels, weight], "patches", strides=[patch, patch])
    graph.node("Reshape", ["patches", graph.integers("shape_flat", [0, hidden, (size // patch) ** 2])], "patches_flat")
    graph.node("Transpose", ["patches_flat"], "patches_rows", perm=[0, 2, 1])
    # A row of zeros in front makes room for the class token without asking for the number of tiles.
    graph.node("Pad", ["patches_rows", graph.integers("pads", [0, 1, 0, 0, 0, 0])], "rows")
    return graph.node("Add", ["rows", graph.weight("positions", _positions(module, vision, size))], "embeddings")


def _positions(module: Any, vision: Any, size: int) -> Array:
    """What the model's own embedding makes of a black tile: class token, patch bias and (interpolated) positions.

    (1, 1 + patches, hidden). Asked from the module, whose interpolation for another size is part of the checkpoint.
    """
    import torch

    with torch.no_grad():
        exact = copy.deepcopy(module).float().eval()
        return array(exact(torch.zeros(1, vision.num_channels, size, size)))


def _attention(graph: Graph, layer: Any, x: str, name: str, vision: Any, storage: Storage) -> str:
    module = layer.attention
    projections = [module.q_proj, module.k_proj, module.v_proj]
    weight = np.concatenate([array(p.weight).T for p in projections], axis=1)
    bias = np.concatenate([array(p.bias) for p in projections]) if vision.attention_bias else None
    qkv = linear(graph, x, weight, bias, f"{name}.qkv", storage)
    query, key, value = (f"{name}.{part}" for part in ("query", "key", "value"))
    graph.node("Split", [qkv], [query, key, value], axis=-1, num_outputs=3)
    if vision.use_qk_norm:  # over all heads at once, unlike the decoders' norms
        query = rms_norm(graph, query, array(module.q_norm.weight), f"{name}.q_norm", module.q_norm.variance_epsilon)
        key = rms_norm(graph, key, array(module.k_norm.weight), f"{name}.k_norm", module.k_norm.variance_epsilon)
    heads, scale = vision.num_attention_heads, float(module.scale)
    attended = full_attention(graph, query, key, value, f"{name}.attended", heads, module.head_dim, scale)
    return _scaled_linear(graph, attended, module.projection_layer, layer.lambda_1, f"{name}.out", storage)


def _skip_norm(graph: Graph, branch: str, residual: str, module: Any, name: str, vision: Any) -> tuple[str, str]:
    """Norm of branch + residual; returns (normed, their sum)."""
    weight, epsilon = array(module.weight), vision.layer_norm_eps
    if vision.norm_type == "rms_norm":
        return skip_rms_norm(graph, branch, residual, weight, name, epsilon)
    return skip_layer_norm(graph, branch, residual, weight, array(module.bias), name, epsilon)


def _scaled_linear(graph: Graph, x: str, module: Any, scale: Any, name: str, storage: Storage) -> str:
    """A matrix and its layer scale (lambda), one column of the matrix times one number."""
    weight, bias, factor = array(module.weight).T, array(module.bias), array(scale)
    if storage.of(name) == "fp16":
        # Small scales would push the products below what float16 holds exactly.
        plain = linear(graph, x, weight, bias, name, storage)
        return graph.node("Mul", [plain, graph.weight(f"{name}.scale", factor)], f"{name}.scaled")
    # Exact at 8 and 4 bits too: every column, or piece of one, is stored relative to its own largest value.
    return linear(graph, x, weight * factor, bias * factor, name, storage)


def _connector(graph: Graph, module: Any, states: str, config: Any, spec: ImageSpec, storage: Storage) -> None:
    """Class token off, pixel shuffle (Shi et al. 2016: r x r neighbouring patches become one token), two matrices."""
    hidden, r = config.vision_config.hidden_size, shuffle(config)
    side = spec.size // config.vision_config.patch_size[0]
    ends = [graph.integers("one", [1]), graph.integers("end", [side * side + 1]), graph.integers("one", [1])]
    graph.node("Slice", [states, *ends], "grid_flat")
    graph.node("Reshape", ["grid_flat", graph.integers("shape_grid", [0, side // r, r, side // r, r * hidden])], "grid")
    graph.node("Transpose", ["grid"], "grid_shuffled", perm=[0, 1, 3, 2, 4])
    tokens = (side // r) ** 2
    graph.node("Reshape", ["grid_shuffled", graph.integers("shape_tokens", [0, tokens, r * r * hidden])], "shuffled")
    norm = module.layer_norm
    normed = layer_norm(graph, "shuffled", array(norm.weight), array(norm.bias), "projector.norm", norm.eps)
    first = dense(graph, normed, module.linear_1, "projector.1", storage)
    active = activation(graph, first, "projector.active", ACTIVATIONS[config.projector_hidden_act])
    dense(graph, active, module.linear_2, "image_features", storage)
    graph.output("image_features", FLOAT, ["batch", tokens, config.text_config.hidden_size])
