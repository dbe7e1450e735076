"""The text decoder as an ONNX graph built straight from its weights (no tracing): Llama layers, `ort` dialect.

One graph serves prefill, decoding and embedding. Inputs and outputs:

    inputs_embeds (B, S, H) float32         attention_mask (B, T) int64: ones, then zeros (right padding)
    positions (B, K) int64                  indexes into S whose hidden states are wanted
    past_key_values.{i}.key|value (B, kv, P, hd) float32, with the keys already rotated
 -> hidden_states (B, K, H) float32 after the final norm; present.{i}.key|value (B, kv, P', hd)

T is the number of valid past tokens plus S. Past and present may be the same buffer of the longest length, bound
in place (GroupQueryAttention then writes only the new rows). The asked positions are gathered before the last
layer's output projection and MLP: exact, since nothing after them mixes positions, and it saves most of a layer.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import CheckpointError
from edgegeo.export.graph import FLOAT, INT64, MICROSOFT, Graph
from edgegeo.export.linear import Storage, linear


@dataclass(frozen=True)
class TrunkShape:
    """The numbers of a Llama decoder that the graph needs."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    max_positions: int
    epsilon: float


def trunk_shape(config: Any) -> TrunkShape:
    """Read a transformers LlamaConfig; CheckpointError names every setting this graph does not reproduce."""
    faults = []
    if config.model_type != "llama":
        faults.append(f"text model type '{config.model_type}'")
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if rope.get("rope_type", "default") != "default":
        faults.append(f"rope type '{rope['rope_type']}'")
    if config.hidden_act != "silu":
        faults.append(f"activation '{config.hidden_act}'")
    for name in ("sliding_window", "attn_logit_softcapping", "final_logit_softcapping", "num_local_experts"):
        if getattr(config, name, None):
            faults.append(f"{name}={getattr(config, name)}")
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    if head_dim % 16:
        # GroupQueryAttention's rotary kernels work on multiples of 16.
        faults.append(f"head size {head_dim} (not a multiple of 16)")
    if faults:
        raise CheckpointError(
            f"the text decoder uses {', '.join(faults)}, which this version can't export; "
            "it exports Llama decoders with plain rotary positions (SmolVLM, SmolLM2)"
        )
    return TrunkShape(
        layers=config.num_hidden_layers, hidden=config.hidden_size, heads=heads,
        kv_heads=config.num_key_value_heads or heads,
        head_dim=head_dim, max_positions=config.max_position_embeddings, epsilon=config.rms_norm_eps,
    )  # fmt: skip


def build_trunk(text: Any, storage: Storage) -> Graph:
    """Graph of a transformers LlamaModel. Raises CheckpointError for configurations it does not reproduce."""
    shape = trunk_shape(text.config)
    graph = Graph("decoder")
    _inputs(graph, shape)
    caches = _rope_caches(graph, text, shape)
    states, skip = graph.input("inputs_embeds", FLOAT, ["batch", "sequence", shape.hidden]), ""
    for index, layer in enumerate(text.layers):
        states, skip = _layer(graph, layer, index, states, skip, shape, caches, storage)
    gamma = graph.weight("norm.weight", array(text.norm.weight))
    graph.node(
        "SkipSimplifiedLayerNormalization", [states, skip, gamma], "hidden_states", MICROSOFT, epsilon=shape.epsilon
    )
    graph.output("hidden_states", FLOAT, ["batch", "asked", shape.hidden])
    for i in range(shape.layers):
        for part in ("key", "value"):
            graph.output(f"present.{i}.{part}", FLOAT, ["batch", shape.kv_heads, "present", shape.head_dim])
    return graph


def array(tensor: Any) -> NDArray[np.float32]:
    """A torch parameter as a float32 numpy array."""
    return np.asarray(tensor.detach().float().cpu().numpy())


def _inputs(graph: Graph, shape: TrunkShape) -> None:
    graph.input("attention_mask", INT64, ["batch", "total"])
    graph.input("positions", INT64, ["batch", "asked"])
    for i in range(shape.layers):
        for part in ("key", "value"):
            graph.input(f"past_key_values.{i}.{part}", FLOAT, ["batch", shape.kv_heads, "past", shape.head_dim])
    # GroupQueryAttention wants, per row, the index of the last valid key, and the longest length.
    graph.node("ReduceSum", ["attention_mask", graph.integers("axis_1", [1])], "mask_sum", keepdims=0)
    graph.node("Sub", ["mask_sum", graph.integers("one", [1])], "last_key")
    graph.node("Cast", ["last_key"], "seqlens_k", to=6)
    graph.node("Shape", ["attention_mask"], "mask_total", start=1, end=2)
    graph.node("Squeeze", ["mask_total", graph.integers("axis_0", [0])], "mask_total_scalar")
    graph.node("Cast", ["mask_total_scalar"], "total_sequence_length", to=6)
    graph.node("Unsqueeze", ["positions", graph.integers("axis_last", [-1])], "positions_nd")


def _rope_caches(graph: Graph, text: Any, shape: TrunkShape) -> tuple[str, str]:
    """Tables from the model's own rotary module, (max_positions, head_dim / 2) each."""
    import torch

    half = shape.head_dim // 2
    cos, sin = text.rotary_emb(torch.zeros(1, 1, 1), torch.arange(shape.max_positions)[None])
    return graph.weight("cos_cache", array(cos)[0, :, :half]), graph.weight("sin_cache", array(sin)[0, :, :half])


def _layer(
    graph: Graph, layer: Any, index: int, states: str, skip: str, shape: TrunkShape,
    caches: tuple[str, str], storage: Storage,
) -> tuple[str, str]:  # fmt: skip
    """One decoder layer; returns the MLP output and the residual it still has to be added to."""
    name, attention, mlp = f"layers.{index}", layer.self_attn, layer.mlp
    normed, residual = _norm(graph, layer.input_layernorm, f"{name}.input_norm", states, skip, shape.epsilon)
    qkv = _packed(graph, normed, [attention.q_proj, attention.k_proj, attention.v_proj], f"{name}.qkv", storage)
    past = [f"past_key_values.{index}.key", f"past_key_values.{index}.value"]
    attended = graph.node(
        "GroupQueryAttention", [qkv, "", "", *past, "seqlens_k", "total_sequence_length", *caches],
        [f"{name}.attended", f"present.{index}.key", f"present.{index}.value"], MICROSOFT,
        num_heads=shape.heads, kv_num_heads=shape.kv_heads, scale=float(attention.scaling),
        do_rotary=1, rotary_interleaved=0,
    )  # fmt: skip
    if index == shape.layers - 1:
        attended = graph.node("GatherND", [attended, "positions_nd"], f"{name}.asked", batch_dims=1)
        residual = graph.node("GatherND", [residual, "positions_nd"], f"{name}.asked_residual", batch_dims=1)
    out = _packed(graph, attended, [attention.o_proj], f"{name}.o", storage)
    normed, residual = _norm(graph, layer.post_attention_layernorm, f"{name}.mlp_norm", out, residual, shape.epsilon)
    both = _packed(graph, normed, [mlp.gate_proj, mlp.up_proj], f"{name}.gate_up", storage)
    graph.node("Split", [both], [f"{name}.gate", f"{name}.up"], axis=-1, num_outputs=2)
    # QuickGelu with alpha 1 is x * sigmoid(x), SiLU in one pass.
    gate = graph.node("QuickGelu", [f"{name}.gate"], f"{name}.silu", MICROSOFT, alpha=1.0)
    gated = graph.node("Mul", [gate, f"{name}.up"], f"{name}.gated")
    return _packed(graph, gated, [mlp.down_proj], f"{name}.down", storage), residual


def _norm(graph: Graph, module: Any, name: str, states: str, skip: str, epsilon: float) -> tuple[str, str]:
    """RMS norm of states + skip; returns (normed, states + skip). The very first norm has nothing to add."""
    gamma = graph.weight(f"{name}.weight", array(module.weight))
    if not skip:
        graph.node("SimplifiedLayerNormalization", [states, gamma], name, axis=-1, epsilon=epsilon, stash_type=1)
        return name, states
    outputs = [name, "", "", f"{name}.sum"]
    graph.node("SkipSimplifiedLayerNormalization", [states, skip, gamma], outputs, MICROSOFT, epsilon=epsilon)
    return name, f"{name}.sum"


def _packed(graph: Graph, x: str, modules: list[Any], name: str, storage: Storage) -> str:
    """Several linear layers over the same input as one matrix, outputs side by side."""
    weight = np.concatenate([array(m.weight).T for m in modules], axis=1)
    biases = [array(m.bias) for m in modules if m.bias is not None]
    if biases and len(biases) != len(modules):
        raise CheckpointError(f"{name}: some of its matrices have a bias and some not; this version can't pack them")
    return linear(graph, x, weight, np.concatenate(biases) if biases else None, name, storage)
