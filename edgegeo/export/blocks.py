"""Norms, activations and full attention: one function each, written in the operators of the graph's dialect.

`ort` takes the contrib operators that are fastest on onnxruntime's CPU provider; `trt` takes standard operators of
opset <= 20 only, for TensorRT 10.3 to 11, and in its modern form those of opset 23. All run in onnxruntime, so tests
compare them with torch. All tensors are float32, and a function that returns one tensor has named it `name`.
"""

import numpy as np
from numpy.typing import NDArray

from edgegeo.export.graph import FLOAT, MICROSOFT, Graph

Array = NDArray[np.float32]

ACTIVATIONS = {
    "silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "tanh", "gelu_new": "tanh", "gelu_fast": "tanh",
    "gelu": "erf", "gelu_python": "erf", "quick_gelu": "quick",
}  # fmt: skip
"""Activation names of transformers -> kinds of `activation`."""
FUSED_HEADS = range(16, 257, 8)
"""Sizes of a head that TensorRT's Attention has float16 kernels for, unpadded (TensorRT-RTX 1.7)."""
FEWEST_HEADS = 4
"""Where one query is asked at a time, it has none for fewer."""


def layer_norm(graph: Graph, x: str, weight: Array, bias: Array | None, name: str, epsilon: float) -> str:
    """Layer norm over the last axis. weight (C,), bias (C,) or None; stored as `<name>.weight` and `.bias`."""
    factor = graph.divide(name)
    if factor is not None:
        weight, bias = weight / factor, None if bias is None else bias / factor
    inputs = [x, graph.weight(f"{name}.weight", weight)]
    if bias is not None:
        inputs.append(graph.weight(f"{name}.bias", bias))
    return graph.node("LayerNormalization", inputs, name, axis=-1, epsilon=epsilon)


def skip_layer_norm(
    graph: Graph, branch: str, residual: str, weight: Array, bias: Array | None, name: str, epsilon: float
) -> tuple[str, str]:
    """Layer norm of branch + residual; returns (normed, their sum). branch "" adds nothing (a tower's first norm)."""
    if not branch:
        return layer_norm(graph, residual, weight, bias, name, epsilon), residual
    # Not SkipLayerNormalization, and not Add, which onnxruntime would fuse into it: its CPU kernel takes 6 times as
    # long as Sum and LayerNormalization together (onnxruntime 1.31), a quarter of a whole int8 vision tower.
    total = graph.node("Sum", [branch, residual], f"{name}.sum")
    return layer_norm(graph, total, weight, bias, name, epsilon), total


def rms_norm(graph: Graph, x: str, gamma: Array, name: str, epsilon: float) -> str:
    """x / sqrt(mean(x^2) + epsilon) * gamma over the last axis (Zhang and Sennrich 2019). gamma (C,)."""
    factor = graph.divide(name)
    weight = graph.weight(f"{name}.weight", gamma if factor is None else gamma / factor)
    if graph.dialect == "ort":
        return graph.node(
            "SimplifiedLayerNormalization", [x, weight], name, axis=-1, epsilon=epsilon, stash_type=1
        )  # fmt: skip
    if graph.modern:
        return graph.node("RMSNormalization", [x, weight], name, axis=-1, epsilon=epsilon)
    square = graph.node("Mul", [x, x], f"{name}.square")
    mean = graph.node("ReduceMean", [square, graph.integers("axis_last", [-1])], f"{name}.mean", keepdims=1)
    shifted = graph.node("Add", [mean, _scalar(graph, f"{name}.epsilon", epsilon)], f"{name}.variance")
    root = graph.node("Sqrt", [shifted], f"{name}.root")
    return graph.node("Mul", [graph.node("Div", [x, root], f"{name}.unit"), weight], name)


def skip_rms_norm(
    graph: Graph, branch: str, residual: str, gamma: Array, name: str, epsilon: float
) -> tuple[str, str]:  # fmt: skip
    """RMS norm of branch + residual; returns (normed, their sum). branch "" adds nothing (a trunk's first norm)."""
    if not branch:
        return rms_norm(graph, residual, gamma, name, epsilon), residual
    # Not SkipSimplifiedLayerNormalization, nor Add, which onnxruntime would fuse into it: its CPU kernel takes 4 times
    # as long as Sum and SimplifiedLayerNormalization together (17 against 4 us for 32 rows of 576, onnxruntime 1.31).
    total = graph.node("Sum" if graph.dialect == "ort" else "Add", [branch, residual], f"{name}.sum")
    return rms_norm(graph, total, gamma, name, epsilon), total


def activation(graph: Graph, x: str, name: str, kind: str) -> str:
    """One of the kinds in `ACTIVATIONS`: silu, or the tanh, erf or quick form of GELU."""
    return silu(graph, x, name) if kind == "silu" else gelu(graph, x, name, kind)


def silu(graph: Graph, x: str, name: str) -> str:
    """x * sigmoid(x)."""
    # QuickGelu with alpha 1 is SiLU in one pass.
    return _sigmoid_gate(graph, x, name, 1.0)


def gelu(graph: Graph, x: str, name: str, kind: str = "tanh") -> str:
    """GELU (Hendrycks and Gimpel 2016): "tanh" and "erf" differ by up to 4e-4; "quick" is x * sigmoid(1.702 x)."""
    if kind == "quick":
        return _sigmoid_gate(graph, x, name, 1.702)
    if kind not in ("tanh", "erf"):
        raise ValueError(f"unknown GELU {kind!r}")
    if graph.dialect != "ort":
        return graph.node("Gelu", [x], name, approximate="tanh" if kind == "tanh" else "none")
    return graph.node("FastGelu" if kind == "tanh" else "Gelu", [x], name, MICROSOFT)


def _sigmoid_gate(graph: Graph, x: str, name: str, alpha: float) -> str:
    if graph.dialect == "ort":
        return graph.node("QuickGelu", [x], name, MICROSOFT, alpha=alpha)
    scaled = x if alpha == 1.0 else graph.node("Mul", [x, _scalar(graph, f"{name}.alpha", alpha)], f"{name}.scaled")
    return graph.node("Mul", [x, graph.node("Sigmoid", [scaled], f"{name}.sigmoid")], name)


def full_attention(
    graph: Graph, query: str, key: str, value: str, name: str, heads: int, head_dim: int, scale: float, bias: str = ""
) -> str:
    """Attention of every position to every other, as vision towers have it.

    query (B, S, heads * head_dim), key and value (B, T, heads * head_dim) -> (B, S, heads * head_dim). bias "" or a
    tensor (B or 1, heads or 1, S, T) that is added to the scores: 0 where allowed, very negative where not.
    """
    if graph.dialect == "ort":
        inputs = [query, key, value, *(["", "", bias] if bias else [])]
        return graph.node("MultiHeadAttention", inputs, name, MICROSOFT, num_heads=heads, scale=scale)
    split = graph.integers(f"shape_{heads}_heads", [0, 0, heads, -1])
    fused = is_fused(graph, heads, head_dim)
    parts = {"query": (query, [0, 2, 1, 3]), "key": (key, [0, 2, 1, 3] if fused else [0, 2, 3, 1]),
             "value": (value, [0, 2, 1, 3])}  # fmt: skip
    apart: dict[str, str] = {}
    for part, (x, order) in parts.items():
        shaped = graph.node("Reshape", [x, split], f"{name}.{part}_shaped")
        apart[part] = graph.node("Transpose", [shaped], f"{name}.{part}_heads", perm=order)
    scaled = graph.node("Mul", [apart["query"], _scalar(graph, f"{name}.scale", scale)], f"{name}.query_scaled")
    key, value = apart["key"], apart["value"]
    if graph.attention != FLOAT:
        key, value, bias = graph.in_half(key), graph.in_half(value), graph.in_half(bias) if bias else ""
    attend = fused_attention if fused else softmax_attention
    attended = attend(graph, scaled, key, value, name, bias)
    joined = graph.node("Transpose", [attended], f"{name}.joined", perm=[0, 2, 1, 3])
    return graph.node("Reshape", [joined, graph.integers("shape_joined", [0, 0, -1])], name)


def is_fused(graph: Graph, heads: int, head_dim: int) -> bool:
    """Whether attention over such heads is the Attention operator, which has kernels in float16 only."""
    return graph.modern and graph.attention != FLOAT and heads >= FEWEST_HEADS and head_dim in FUSED_HEADS


def fused_attention(graph: Graph, query: str, key: str, value: str, name: str, bias: str) -> str:
    """softmax(query key^T + bias) value as one operator, where `is_fused`.

    query (B, N, S, d) float32 already scaled, key and value (B, K, T, d) float16, of which each head stands for N / K
    heads of the query -> (B, N, S, d) float32. bias: float16, or "".
    """
    inputs = [graph.in_half(query), key, value, *([bias] if bias else [])]
    # The operator would multiply queries and keys by sqrt(scale) each; keys lie in the cache and are many.
    attended = graph.node("Attention", inputs, f"{name}.fused", scale=1.0)
    return graph.node("Cast", [attended], f"{name}.fused_wide", to=FLOAT)


def softmax_attention(graph: Graph, query: str, key: str, value: str, name: str, bias: str) -> str:
    """softmax(query key + bias) value in standard operators.

    query (B, N, S, d) float32 already scaled, key (B, N, d, T), value (B, N, T, d) -> (B, N, S, d) float32. key, value
    and bias, which may be "", as the graph's attention has them. In float16 all of it, the softmax too, is one chain:
    TensorRT has fused kernels for that, and none in float32.
    """
    if graph.attention != FLOAT:
        query = graph.in_half(query)
    scores = graph.node("MatMul", [query, key], f"{name}.scores")
    if bias:
        scores = graph.node("Add", [scores, bias], f"{name}.masked")
    weights = graph.node("Softmax", [scores], f"{name}.softmax", axis=-1)
    weighted = graph.node("MatMul", [weights, value], f"{name}.weighted")
    return weighted if graph.attention == FLOAT else graph.node("Cast", [weighted], f"{name}.weighted_wide", to=FLOAT)


def _scalar(graph: Graph, name: str, value: float) -> str:
    return graph.weight(name, np.array(value, np.float32))
