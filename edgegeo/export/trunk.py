"""The text decoder as an ONNX graph built straight from its weights (no tracing), in both dialects.

One graph serves prefill, decoding and embedding. Inputs and outputs:

    inputs_embeds (B, S, H) float32         attention_mask (B, T) int64, see export/attention.py
    positions (B, K) int64                  indexes into S whose hidden states are wanted
    past_key_values.{i}.key|value (B, kv, P, hd) float32, with the keys already rotated; float16 in the trt dialect
                                            unless the matrices are fp32
    position_ids (3, B, S) int64            M-RoPE only (Qwen2.5-VL): temporal, height and width position
    image_blocks (B, S) int64               Gemma 3 only: 0 text, n the n-th picture, whose positions see each other
 -> hidden_states (B, K, H) float32 after the final norm; present.{i}.key|value (B, kv, P', hd)

T is the number of past tokens plus S. `ort`: past and present may be the same buffer of the longest length, bound
in place, which then gets only the new rows. `trt`: present is past and new, concatenated. The asked positions are
gathered before the last layer's output projection and MLP: exact, since nothing after them mixes positions, and it
saves most of a layer.
"""

from typing import Any

import numpy as np

from edgegeo.errors import CheckpointError
from edgegeo.export.attention import OrtAttention, TrtAttention, split_packed
from edgegeo.export.blocks import Array, activation, rms_norm, skip_rms_norm
from edgegeo.export.decoder_shape import TrunkShape, trunk_shape
from edgegeo.export.graph import FLOAT, INT64, Graph, array
from edgegeo.export.kv_cache import CacheStorage
from edgegeo.export.linear import Storage, linear

__all__ = ["TrunkShape", "build_trunk", "trunk_shape"]


def build_trunk(text: Any, storage: Storage, dialect: str = "ort") -> Graph:
    """Graph of a transformers text model: Llama, Qwen2, Qwen3, Qwen2_5_VLText or Gemma3Text.

    Token embeddings come in as the model's own embedding module makes them: Gemma's are scaled by sqrt(hidden).
    Raises CheckpointError for configurations it does not reproduce.
    """
    shape = trunk_shape(text.config, dialect)
    graph = Graph("decoder", dialect, storage.precision)
    cache = CacheStorage(storage.kv, storage.statistics)
    cache.check(shape)
    kind = cache.kind if dialect == "ort" else graph.attention
    states, skip = _inputs(graph, shape, kind), ""
    attention = OrtAttention(graph, text, shape, cache) if dialect == "ort" else TrtAttention(graph, text, shape)
    for index, layer in enumerate(text.layers):
        states, skip = _layer(graph, layer, index, states, skip, shape, attention, storage)
    skip_rms_norm(graph, states, skip, _gamma(text.norm, shape), "hidden_states", shape.epsilon)
    graph.output("hidden_states", FLOAT, ["batch", "asked", shape.hidden])
    for i in range(shape.layers):
        for part in ("key", "value"):
            graph.output(f"present.{i}.{part}", kind, ["batch", shape.kv_heads, "present", shape.head_dim])
    return graph


def _inputs(graph: Graph, shape: TrunkShape, cache: int) -> str:
    states = graph.input("inputs_embeds", FLOAT, ["batch", "sequence", shape.hidden])
    graph.input("attention_mask", INT64, ["batch", "total"])
    graph.input("positions", INT64, ["batch", "asked"])
    if shape.rope == "mrope":
        graph.input("position_ids", INT64, [3, "batch", "sequence"])
    if shape.blocks:
        graph.input("image_blocks", INT64, ["batch", "sequence"])
    for i in range(shape.layers):
        for part in ("key", "value"):
            graph.input(f"past_key_values.{i}.{part}", cache, ["batch", shape.kv_heads, "past", shape.head_dim])
    graph.node("Unsqueeze", ["positions", graph.integers("axis_last", [-1])], "positions_nd")
    return states


def _layer(
    graph: Graph, layer: Any, index: int, states: str, skip: str, shape: TrunkShape,
    attention: OrtAttention | TrtAttention, storage: Storage,
) -> tuple[str, str]:  # fmt: skip
    """One decoder layer; returns the MLP output and the residual it still has to be added to."""
    name, epsilon, sandwich = f"layers.{index}", shape.epsilon, shape.kind == "gemma3_text"
    gamma = _gamma(layer.input_layernorm, shape)
    # A trunk's first norm has nothing to add: the states are the residual.
    branch, residual = (states, skip) if skip else ("", states)
    normed, residual = skip_rms_norm(graph, branch, residual, gamma, f"{name}.input_norm", epsilon)
    attended = _attention(graph, layer.self_attn, index, normed, shape, attention, storage)
    if index == shape.layers - 1:
        attended = graph.node("GatherND", [attended, "positions_nd"], f"{name}.asked", batch_dims=1)
        residual = graph.node("GatherND", [residual, "positions_nd"], f"{name}.asked_residual", batch_dims=1)
    out = packed_linear(graph, attended, [layer.self_attn.o_proj], f"{name}.o", storage)
    before_mlp = layer.post_attention_layernorm
    if sandwich:
        out = rms_norm(graph, out, _gamma(before_mlp, shape), f"{name}.attention_norm", epsilon)
        before_mlp = layer.pre_feedforward_layernorm
    normed, residual = skip_rms_norm(graph, out, residual, _gamma(before_mlp, shape), f"{name}.mlp_norm", epsilon)
    mlp = layer.mlp
    gate, up = (packed_linear(graph, normed, [one], f"{name}.{part}", storage) for part, one in (
        ("gate", mlp.gate_proj), ("up", mlp.up_proj)))  # fmt: skip
    gate = activation(graph, gate, f"{name}.activation", shape.activation)
    graph.divide(f"{name}.gated")  # as `up` is
    gated = graph.node("Mul", [gate, up], f"{name}.gated")
    out = packed_linear(graph, gated, [mlp.down_proj], f"{name}.down", storage)
    if sandwich:
        out = rms_norm(graph, out, _gamma(layer.post_feedforward_layernorm, shape), f"{name}.out_norm", epsilon)
    return out, residual


def _attention(
    graph: Graph, module: Any, index: int, x: str, shape: TrunkShape,
    attention: OrtAttention | TrtAttention, storage: Storage,
) -> str:  # fmt: skip
    name = f"layers.{index}"
    packed = packed_linear(graph, x, [module.q_proj, module.k_proj, module.v_proj], f"{name}.qkv", storage)
    scale = float(module.scaling)
    if shape.kind not in ("qwen3", "gemma3_text"):
        return attention.attend(index, packed, "", "", "", scale)
    query, key, value = split_packed(graph, packed, shape, name)
    normed = []
    for part, norm, heads in ((query, module.q_norm, shape.heads), (key, module.k_norm, shape.kv_heads)):
        apart = graph.integers(f"shape_{heads}_heads", [0, 0, heads, -1])
        graph.node("Reshape", [part, apart], f"{part}_apart")
        rms_norm(graph, f"{part}_apart", _gamma(norm, shape), f"{part}_norm", shape.epsilon)
        joined = graph.integers(f"shape_{heads}_joined", [0, 0, heads * shape.head_dim])
        normed.append(graph.node("Reshape", [f"{part}_norm", joined], f"{part}_normed"))
    return attention.attend(index, "", normed[0], normed[1], value, scale)


def _gamma(module: Any, shape: TrunkShape) -> Array:
    """The factor of a norm; Gemma stores it less 1."""
    weight = array(module.weight)
    return np.asarray(weight + np.float32(1.0)) if shape.kind == "gemma3_text" else weight


def packed_linear(graph: Graph, x: str, modules: list[Any], name: str, storage: Storage) -> str:
    """Several linear layers over the same input as one matrix, outputs side by side."""
    weight = array(modules[0].weight) if len(modules) == 1 else np.concatenate([array(m.weight) for m in modules])
    biases = [array(m.bias) for m in modules if m.bias is not None]
    if biases and len(biases) != len(modules):
        raise CheckpointError(f"{name}: some of its matrices have a bias and some not; this version can't pack them")
    return linear(graph, x, weight.T, np.concatenate(biases) if biases else None, name, storage)
