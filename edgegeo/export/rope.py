"""Rotary positions (Su et al. 2021) as tables inside a graph: the host never computes an angle.

The tables are asked from the model's own rotary module, so that every static kind of scaling comes with its
rounding.
"""

from typing import Any

import numpy as np

from edgegeo.export.decoder_shape import TrunkShape
from edgegeo.export.graph import Graph, array

Pair = tuple[str, str]
"""Names of the cosines and of the sines."""


def rope_tables(graph: Graph, text: Any, shape: TrunkShape) -> dict[str, Pair]:
    """Cosines and sines (max_positions, head_dim / 2) for every rotary base of the model, by its layer type."""
    import torch

    positions = torch.arange(shape.max_positions)[None]
    if shape.rope == "mrope":
        positions = positions.expand(3, 1, -1)
    tables = {}
    for kind in dict.fromkeys(shape.layer_types):
        options = {"layer_type": kind} if kind else {}
        angles = text.rotary_emb(torch.zeros(1, 1, 1), positions, **options)
        tail = f"_{kind}" if kind else ""
        cos, sin = (array(one)[0, :, : shape.head_dim // 2] for one in angles)
        tables[kind] = graph.weight(f"cos_cache{tail}", cos), graph.weight(f"sin_cache{tail}", sin)
    return tables


def rows_of_positions(graph: Graph, table: Pair, positions: str, name: str) -> Pair:
    """Rows of a table for positions (B, S): two tensors (B, S, head_dim / 2)."""
    cos = graph.node("Gather", [table[0], positions], f"{name}.cos", axis=0)
    return cos, graph.node("Gather", [table[1], positions], f"{name}.sin", axis=0)


def rows_of_grids(graph: Graph, table: Pair, shape: TrunkShape) -> Pair:
    """M-RoPE rows (B, S, head_dim / 2) for the input position_ids (3, B, S).

    Each angle follows one of the three rows of positions: gathered for all three, kept where the section says so
    and added up, which is exact because the other two are zero.
    """
    owner = np.concatenate([np.full(width, row) for row, width in enumerate(shape.sections)])
    chosen = (np.arange(3)[:, None] == owner).astype(np.float32)[:, None, None]
    choice = graph.weight("mrope_choice", chosen)
    first = graph.integers("axis_0", [0])
    rows = []
    for part, name in zip(table, ("cos", "sin"), strict=True):
        grids = graph.node("Gather", [part, "position_ids"], f"mrope.{name}_grids", axis=0)
        kept = graph.node("Mul", [grids, choice], f"mrope.{name}_kept")
        rows.append(graph.node("ReduceSum", [kept, first], f"mrope.{name}", keepdims=0))
    return rows[0], rows[1]


def rotate(graph: Graph, x: str, rows: Pair, name: str) -> str:
    """Rotate x (B, N, S, d) by rows (B, 1, S, d / 2) in standard operators: halves, not interleaved pairs.

    In the modern form the operator does it, by rows (B, S, d / 2).
    """
    cos, sin = rows
    if graph.modern:
        return graph.node("RotaryEmbedding", [x, cos, sin], f"{name}.rotated")
    left, right = f"{name}.left", f"{name}.right"
    graph.node("Split", [x], [left, right], axis=-1, num_outputs=2)
    parts = {}
    for part, by in ((left, cos), (right, sin), (right, cos), (left, sin)):
        parts[part, by] = graph.node("Mul", [part, by], f"{part}_{'cos' if by == cos else 'sin'}")
    first = graph.node("Sub", [parts[left, cos], parts[right, sin]], f"{name}.first")
    second = graph.node("Add", [parts[right, cos], parts[left, sin]], f"{name}.second")
    return graph.node("Concat", [first, second], f"{name}.rotated", axis=-1)
