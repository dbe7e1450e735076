"""Pre-norm transformer layers, as CLIP and SigLIP have them in both their towers: norm, attention, norm, two matrices.

The modules are transformers' `CLIPEncoderLayer` and `SiglipEncoderLayer`, which share their attribute names.
"""

from collections.abc import Callable, Sequence
from typing import Any

from edgegeo.errors import CheckpointError
from edgegeo.export.blocks import ACTIVATIONS, full_attention, gelu, skip_layer_norm
from edgegeo.export.graph import Graph, array
from edgegeo.export.linear import Storage, linear

Pick = Callable[[str, str], str]
"""(tensor, name) -> the rows of it that are asked for."""


def check_encoder(config: Any, what: str) -> None:
    """CheckpointError for an activation or head size that these layers don't reproduce."""
    faults = []
    if ACTIVATIONS.get(config.hidden_act, "silu") == "silu":
        faults.append(f"activation '{config.hidden_act}'")
    if config.hidden_size % config.num_attention_heads:
        faults.append(f"{config.num_attention_heads} heads over {config.hidden_size}")
    if faults:
        raise CheckpointError(
            f"{what} uses {', '.join(faults)}, which this version can't export; "
            "it exports encoders with GELU (tanh, erf or quick) and equal heads"
        )


def encode(
    graph: Graph, layers: Sequence[Any], config: Any, states: str, storage: Storage, bias: str = "",
    pick: Pick | None = None,
) -> tuple[str, str]:  # fmt: skip
    """Emit the layers over `states` (B, S, H); returns the last branch and the residual it still has to be added to.

    bias: added to every attention score (`full_attention`). pick: asked rows, taken in the last layer before its
    output projection: exact, since nothing after attention mixes positions, and it saves most of a layer.
    """
    residual, branch = states, ""
    for index, layer in enumerate(layers):
        name = f"layers.{index}"
        normed, residual = add_norm(graph, branch, residual, layer.layer_norm1, f"{name}.norm1")
        attended = _attention(graph, layer.self_attn, normed, f"{name}.attention", storage, bias)
        if pick is not None and index == len(layers) - 1:
            attended, residual = pick(attended, f"{name}.asked"), pick(residual, f"{name}.asked_residual")
        branch = dense(graph, attended, layer.self_attn.out_proj, f"{name}.out", storage)
        normed, residual = add_norm(graph, branch, residual, layer.layer_norm2, f"{name}.norm2")
        branch = feed_forward(graph, normed, layer.mlp, config, name, storage)
    return branch, residual


def add_norm(graph: Graph, branch: str, residual: str, module: Any, name: str) -> tuple[str, str]:
    """Layer norm of branch + residual by a torch LayerNorm; returns (normed, their sum)."""
    return skip_layer_norm(graph, branch, residual, array(module.weight), array(module.bias), name, float(module.eps))


def dense(graph: Graph, x: str, module: Any, name: str, storage: Storage) -> str:
    """A torch Linear."""
    return linear(graph, x, array(module.weight).T, None if module.bias is None else array(module.bias), name, storage)


def feed_forward(graph: Graph, x: str, mlp: Any, config: Any, name: str, storage: Storage) -> str:
    """fc1, GELU, fc2."""
    wide = dense(graph, x, mlp.fc1, f"{name}.fc1", storage)
    active = gelu(graph, wide, f"{name}.gelu", ACTIVATIONS[config.hidden_act])
    return dense(graph, active, mlp.fc2, f"{name}.fc2", storage)


def _attention(graph: Graph, module: Any, x: str, name: str, storage: Storage, bias: str) -> str:
    query, key, value = (dense(graph, x, getattr(module, f"{part}_proj"), f"{name}.{part}", storage) for part in "qkv")
    heads, size = module.num_heads, module.head_dim
    return full_attention(graph, query, key, value, name, heads, size, float(module.scale), bias)
