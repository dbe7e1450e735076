"""The text towers of dual encoders as ONNX graphs, built straight from the weights.

    input_ids (B, S) int64 -> text_embeds (B, dim) float32, not normalised

CLIP reads any S up to its positions: causal attention, pooled at the end-of-text token, so that what is padded after
it changes nothing. SigLIP reads its full length only: attention both ways over the padding as well, pooled at the
last position, as it was trained.
"""

from typing import Any

import numpy as np

from edgegeo.errors import CheckpointError
from edgegeo.export.encoder import Pick, add_norm, check_encoder, dense, encode
from edgegeo.export.graph import FLOAT, INT64, Graph, array
from edgegeo.export.linear import Storage, to_half
from edgegeo.models.family import Parts

MASKED = float(np.finfo(np.float16).min)
"""Score of a position that must not be seen: far below any other, and finite at 16 bits too."""


def build_text(architecture: str, parts: Parts, storage: Storage, table: str = "fp32", dialect: str = "ort") -> Graph:
    """Graph of a text tower. architecture: `Family.text`; table: how its token embeddings are stored, fp32 or fp16."""
    if architecture == "clip":
        return build_clip_text(parts.text, parts.head, storage, table, dialect)
    if architecture == "siglip":
        return build_siglip_text(parts.text, storage, table, dialect)
    raise ValueError(f"unknown text tower {architecture!r}")


def build_clip_text(text: Any, projection: Any, storage: Storage, table: str = "fp32", dialect: str = "ort") -> Graph:
    """Graph of a transformers CLIPTextModel and its projection; `table` is how token embeddings are stored.

    CheckpointError for configurations it does not reproduce.
    """
    config = text.config
    check_encoder(config, "the text encoder")
    if not isinstance(config.eos_token_id, int):
        raise CheckpointError(f"the text encoder pools at {config.eos_token_id}; this version needs one eos_token_id")
    graph = Graph("text_encoder", dialect, storage.precision)
    ids = graph.input("input_ids", INT64, ["batch", "sequence"])
    length = graph.node("Shape", [ids], "length", start=1, end=2)
    zero, first = graph.integers("start", [0]), graph.integers("axis_0", [0])
    positions = graph.weight("positions", array(text.embeddings.position_embedding.weight))
    rows = graph.node("Slice", [positions, zero, length, first], "position_rows")
    states = graph.node("Add", [_token_rows(graph, text, ids, table), rows], "embeddings")
    branch, residual = encode(
        graph, text.encoder.layers, config, states, storage, _causal(graph, length, config.max_position_embeddings),
        _at(graph, _end_of_text(graph, ids, config.eos_token_id)),
    )  # fmt: skip
    pooled, _ = add_norm(graph, branch, residual, text.final_layer_norm, "final_norm")
    dense(graph, pooled, projection, "text_embeds", storage)
    graph.output("text_embeds", FLOAT, ["batch", projection.out_features])
    return graph


def build_siglip_text(text: Any, storage: Storage, table: str = "fp32", dialect: str = "ort") -> Graph:
    """Graph of a transformers SiglipTextModel; input_ids are always padded to its full length.

    CheckpointError for configurations it does not reproduce.
    """
    config = text.config
    check_encoder(config, "the text encoder")
    length = config.max_position_embeddings
    graph = Graph("text_encoder", dialect, storage.precision)
    ids = graph.input("input_ids", INT64, ["batch", length])
    positions = graph.weight("positions", array(text.embeddings.position_embedding.weight))
    states = graph.node("Add", [_token_rows(graph, text, ids, table), positions], "embeddings")
    last = graph.integers("last", length - 1)

    def pick(x: str, name: str) -> str:
        return graph.node("Gather", [x, last], name, axis=1)

    branch, residual = encode(graph, text.encoder.layers, config, states, storage, "", pick)
    pooled, _ = add_norm(graph, branch, residual, text.final_layer_norm, "final_norm")
    dense(graph, pooled, text.head, "text_embeds", storage)
    graph.output("text_embeds", FLOAT, ["batch", text.head.out_features])
    return graph


def _token_rows(graph: Graph, text: Any, ids: str, table: str) -> str:
    """Token embeddings (B, S, H) float32; a table at 16 bits is widened after the few rows are taken."""
    weight = array(text.embeddings.token_embedding.weight)
    if table == "fp32":
        return graph.node("Gather", [graph.weight("token_embedding", weight), ids], "token_rows", axis=0)
    stored = graph.weight("token_embedding", to_half(weight, "token_embedding"))
    return graph.node("Cast", [graph.node("Gather", [stored, ids], "token_rows_half", axis=0)], "token_rows", to=FLOAT)


def _causal(graph: Graph, length: str, longest: int) -> str:
    """(1, 1, S, S): what comes later is masked."""
    whole = np.triu(np.full((longest, longest), MASKED, np.float32), 1)[None, None]
    ends = graph.node("Concat", [length, length], "lengths", axis=0)
    inputs = [graph.weight("causal", whole), graph.integers("starts", [0, 0]), ends, graph.integers("axes", [2, 3])]
    return graph.node("Slice", inputs, "causal_bias")


def _end_of_text(graph: Graph, ids: str, eos: int) -> str:
    """Index (B, 1) of the first end-of-text token, found as `CLIPTextModel` finds it."""
    small = graph.node("Cast", [ids], "ids_32", to=6)
    if eos == 2:
        # Checkpoints made before transformers 4.31 name 2 and mean the highest id, which ends every text.
        found = small
    else:
        same = graph.node("Equal", [ids, graph.integers("eos", eos)], "is_eos")
        found = graph.node("Cast", [same], "is_eos_32", to=6)
    return graph.node("ArgMax", [found], "end_of_text", axis=-1, keepdims=1)


def _at(graph: Graph, index: str) -> Pick:
    """Picks row `index` (B, 1) of (B, S, H): (B, H)."""

    def pick(x: str, name: str) -> str:
        return graph.node("GatherND", [x, index], name, batch_dims=1)

    return pick
