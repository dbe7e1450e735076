"""The Qwen2.5-VL vision tower as one ONNX graph for every grid of patches, straight from the weights.

Patches keep the processor's order from end to end. A window layer gathers queries, keys and values into full windows,
attends window by window with the empty places masked, and gathers the result back, so that linear layers never see
padding; attention does not mind the order within a window, so neither a permutation nor its inverse is needed.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError
from edgegeo.export.blocks import ACTIVATIONS, activation, full_attention, gelu, skip_rms_norm
from edgegeo.export.encoder import dense
from edgegeo.export.graph import FLOAT, INT64, MICROSOFT, Graph, array
from edgegeo.export.linear import Storage, linear

_EPSILON = 1e-6
# Written into the modelling code, not into the configuration.
_FORBIDDEN = -1e4
# Added to the scores of empty places: exp() of it is 0, and it fits float16.


@dataclass(frozen=True)
class _Windows:
    """Names of the tensors that window layers share."""

    patches: str
    """Patch of each place (windows, n)."""
    bias: str
    """(windows, 1, n, n), 0 or _FORBIDDEN."""
    places: int
    """n"""


def build(parts: Any, config: Any, spec: ImageSpec, storage: Storage, dialect: str = "ort") -> Graph:
    """Graph of a Qwen2_5_VisionTransformerPretrainedModel with its merger; CheckpointError for other kinds.

    Inputs: see `edgegeo.runtime.pictures.qwen2_5_vl.prepare`, one picture a run. Output: image_features
    (tokens, text hidden) float32, row by row.
    """
    vision, tower = config.vision_config, parts.vision
    check(vision, spec)
    graph = Graph("vision_encoder", dialect, storage.precision)
    graph.input("pixel_values", FLOAT, ["patches", vision.in_channels * vision.patch_size**2])
    graph.input("patch_places", INT64, ["patches", 2])
    places = (spec.window // spec.patch) ** 2
    graph.input("window_slots", INT64, ["windows", places])
    graph.input("patch_slots", INT64, ["patches"])
    _rotations(graph, vision)
    windows = _windows(graph, places)
    # A still picture is one frame repeated, so the frames of the kernel add up to one.
    kernel = array(tower.patch_embed.proj.weight).sum(axis=2).reshape(vision.hidden_size, -1)
    rows = graph.node("Unsqueeze", ["pixel_values", graph.integers("axis_0", [0])], "pixel_rows")
    residual, branch = linear(graph, rows, kernel.T, None, "patch", storage), ""
    for index, block in enumerate(tower.blocks):
        name = f"layers.{index}"
        gamma = array(block.norm1.weight)
        normed, residual = skip_rms_norm(graph, branch, residual, gamma, f"{name}.norm1", _EPSILON)
        reach = None if index in vision.fullatt_block_indexes else windows
        attended = _attention(graph, block.attn.qkv, normed, name, vision.num_heads, reach, storage)
        branch = dense(graph, attended, block.attn.proj, f"{name}.out", storage)
        gamma = array(block.norm2.weight)
        normed, residual = skip_rms_norm(graph, branch, residual, gamma, f"{name}.norm2", _EPSILON)
        branch = _gated(graph, block.mlp, normed, name, vision.hidden_act, storage)
    gamma = array(tower.merger.ln_q.weight)
    normed, _ = skip_rms_norm(graph, branch, residual, gamma, "merger.norm", _EPSILON)
    _merge(graph, tower.merger.mlp, normed, vision, storage)
    return graph


def check(vision: Any, spec: ImageSpec) -> None:
    """CheckpointError, naming every fault, for a vision_config that `build` does not know."""
    faults = []
    if vision.hidden_act not in ACTIVATIONS:
        faults.append(f"activation '{vision.hidden_act}'")
    if (vision.rope_parameters or {}).get("rope_type", "axial") != "axial":
        faults.append(f"rope type '{vision.rope_parameters['rope_type']}'")
    if vision.in_channels != 3:
        faults.append(f"{vision.in_channels} colour channels")
    if vision.hidden_size % (4 * vision.num_heads):
        faults.append(f"{vision.num_heads} heads in a width of {vision.hidden_size}")
    sides = (vision.patch_size, vision.spatial_merge_size, vision.window_size)
    if sides != (spec.patch, spec.merge, spec.window):
        faults.append(f"patch, merge and window of {sides} where pictures have {(spec.patch, spec.merge, spec.window)}")
    elif spec.window % (spec.patch * spec.merge):
        faults.append(f"windows of {spec.window} px over tokens of {spec.patch * spec.merge} px")
    if faults:
        raise CheckpointError(
            f"the vision tower uses {', '.join(faults)}, which this version can't export; "
            "it exports the towers of Qwen2.5-VL checkpoints"
        )


def _rotations(graph: Graph, vision: Any) -> None:
    """Tensors rope.cos and rope.sin: each patch's rotation by its row and its column, half of a head each."""
    import torch

    # By torch, to round as the model's own buffer does (which is not part of the checkpoint).
    half, theta = vision.hidden_size // vision.num_heads // 2, vision.rope_parameters["rope_theta"]
    frequencies = (1.0 / (theta ** (torch.arange(0, half, 2, dtype=torch.float) / half))).numpy()
    places = graph.node("Cast", ["patch_places"], "patch_places_float", to=FLOAT)
    apart = graph.node("Unsqueeze", [places, graph.integers("axis_2", [2])], "patch_places_apart")
    angles = graph.node("Mul", [apart, graph.weight("rope.frequencies", frequencies)], "rope.angles_apart")
    angles = graph.node("Reshape", [angles, graph.integers("shape_angles", [-1, half])], "rope.angles")
    rows = angles
    if graph.modern:  # (1, patches, half)
        rows = graph.node("Unsqueeze", [angles, graph.integers("axis_0", [0])], "rope.angles_rows")
    elif graph.dialect != "ort":  # (patches, 1, head): the two sides of a head turn by the same angles
        double = graph.node("Concat", [angles, angles], "rope.angles_double", axis=-1)
        rows = graph.node("Unsqueeze", [double, graph.integers("axis_1", [1])], "rope.angles_rows")
    graph.node("Cos", [rows], "rope.cos")
    graph.node("Sin", [rows], "rope.sin")


def _windows(graph: Graph, places: int) -> _Windows:
    """An empty place stands for patch 0, which none attends to there."""
    zero = graph.integers("zero", [0])
    patches = graph.node("Max", ["window_slots", zero], "window_patches")
    empty = graph.node("Cast", [graph.node("Less", ["window_slots", zero], "window_empty")], "window_holes", to=FLOAT)
    # onnxruntime's attention wants a bias for every query too, so each row of keys is repeated.
    square = graph.weight("forbidden", np.full((1, 1, places, 1), _FORBIDDEN, np.float32))
    keys = graph.node("Unsqueeze", [empty, graph.integers("axes_keys", [1, 2])], "window_keys")
    return _Windows(patches, graph.node("Mul", [keys, square], "window_bias"), places)


def _attention(
    graph: Graph, module: Any, x: str, name: str, heads: int, windows: _Windows | None, storage: Storage
) -> str:  # fmt: skip
    """x (1, patches, C) -> (1, patches, C), before the output projection. windows None: all attend to all."""
    width = module.out_features // 3
    # Three matrices instead of one and a Split, which would copy the result.
    weights, biases = np.split(array(module.weight), 3), np.split(array(module.bias), 3)
    parts = []
    for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
        made = linear(graph, x, weight.T, bias, f"{name}.{part}", storage)
        if part != "value":
            made = _rotate(graph, made, f"{made}_rotated", heads)
        if windows:
            placed = graph.node("Gather", [made, windows.patches], f"{name}.{part}_placed", axis=1)
            shape = graph.integers("shape_windows", [-1, windows.places, width])
            made = graph.node("Reshape", [placed, shape], f"{name}.{part}_windows")
        parts.append(made)
    query, key, value = parts
    size = width // heads
    scale = float(size**-0.5)
    attended = f"{name}.attended"
    if not windows:
        return full_attention(graph, query, key, value, attended, heads, size, scale)
    full_attention(graph, query, key, value, attended, heads, size, scale, windows.bias)
    flat = graph.node("Reshape", [attended, graph.integers("shape_flat", [1, -1, width])], f"{name}.flat")
    return graph.node("Gather", [flat, "patch_slots"], f"{name}.taken", axis=1)


def _rotate(graph: Graph, x: str, name: str, heads: int) -> str:
    """Rotary embedding of (1, patches, heads * head): the two sides of a head span the planes."""
    if graph.dialect == "ort":
        rows = graph.integers("rope.in_order", [0])
        return graph.node("RotaryEmbedding", [x, rows, "rope.cos", "rope.sin"], name, MICROSOFT)
    if graph.modern:
        return graph.node("RotaryEmbedding", [x, "rope.cos", "rope.sin"], name, num_heads=heads)
    split = graph.node("Reshape", [x, graph.integers(f"shape_{heads}_heads", [0, 0, heads, -1])], f"{name}.heads")
    first, second = f"{name}.first", f"{name}.second"
    graph.node("Split", [split], [first, second], axis=-1, num_outputs=2)
    turned = graph.node("Concat", [graph.node("Neg", [second], f"{name}.minus"), first], f"{name}.turned", axis=-1)
    straight = graph.node("Mul", [split, "rope.cos"], f"{name}.cos")
    total = graph.node("Add", [straight, graph.node("Mul", [turned, "rope.sin"], f"{name}.sin")], f"{name}.sum")
    return graph.node("Reshape", [total, graph.integers("shape_joined", [0, 0, -1])], name)


def _gated(graph: Graph, module: Any, x: str, name: str, kind: str, storage: Storage) -> str:
    gate = dense(graph, x, module.gate_proj, f"{name}.gate", storage)
    up = dense(graph, x, module.up_proj, f"{name}.up", storage)
    opened = activation(graph, gate, f"{name}.act", ACTIVATIONS[kind])
    product = graph.node("Mul", [opened, up], f"{name}.gated")
    return dense(graph, product, module.down_proj, f"{name}.down", storage)


def _merge(graph: Graph, mlp: Any, x: str, vision: Any, storage: Storage) -> None:
    """The merge x merge patches of a token, one after another, through two layers."""
    width = vision.hidden_size * vision.spatial_merge_size**2
    merged = graph.node("Reshape", [x, graph.integers("shape_merged", [-1, width])], "merger.patches")
    inner = gelu(graph, dense(graph, merged, mlp[0], "merger.0", storage), "merger.gelu", "erf")
    dense(graph, inner, mlp[2], "image_features", storage)
    graph.output("image_features", FLOAT, ["tokens", vision.out_hidden_size])
