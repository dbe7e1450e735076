"""Causal attention of a decoder layer over a KV cache, one class per dialect.

Both read the graph's inputs attention_mask, past_key_values.* and, where the model has them, position_ids and
image_blocks; both write present.{i}.key|value (B, kv, ., hd) with the keys rotated.

attention_mask (B, T), T = past positions + S: `ort` counts its ones, which stand to the left. `trt` reads it slot by
slot: 1 where a slot of the cache or a new position holds a token. The two agree for one row, for rows of one length
and for a right-padded prompt without a past.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgegeo.export.blocks import fused_attention, is_fused, softmax_attention
from edgegeo.export.decoder_shape import TrunkShape
from edgegeo.export.graph import FLOAT, MICROSOFT, Graph
from edgegeo.export.kv_cache import CacheStorage
from edgegeo.export.rope import Pair, rope_tables, rotate, rows_of_grids, rows_of_positions

FORBIDDEN = -60000.0
"""Added to the scores that may not count: exp() of it is 0, and it fits in float16."""
BOOL, INT32 = 9, 6


class OrtAttention:
    """GroupQueryAttention: past and present may be one buffer bound in place, then it writes only the new rows.

    It is causal. Where a prompt has pictures whose positions see each other both ways (Gemma 3), it still writes the
    cache, and an If computes the attention of the layer again with an explicit mask: at decoding and for text alone
    the branch does not run. `causal=0` with a bias would need onnxruntime 1.31.
    """

    def __init__(self, graph: Graph, text: Any, shape: TrunkShape, cache: CacheStorage | None = None) -> None:
        self.graph, self.shape = graph, shape
        self.cache = cache or CacheStorage()
        self._last_keys()
        graph.node("Squeeze", ["mask_total", graph.integers("axis_0", [0])], "mask_total_scalar")
        graph.node("Cast", ["mask_total_scalar"], "total_sequence_length", to=INT32)
        self.tables, self.numbers = rope_tables(graph, text, shape), ""
        if shape.rope == "mrope":
            self._one_row_a_token()
        self.masks: dict[int, str] = {}
        if shape.blocks or any(shape.windows):
            graph.node("Sub", ["mask_total", "count_new"], "count_past")
            windows = shape.windows if shape.blocks else [w for w in shape.windows if w]
            self.masks = masks(graph, shape, windows, self._slots())
        if shape.blocks:
            graph.node("ReduceMax", ["image_blocks"], "last_block", keepdims=0)
            graph.node("Greater", ["last_block", graph.integers("zero", 0)], "has_pictures")

    def _last_keys(self) -> None:
        """GroupQueryAttention wants, per row, the index of the last valid key.

        With several new positions, all of a row count, padding too: being causal, valid ones never see it. Told of
        the padding, onnxruntime 1.23 reads memory that it never wrote for the padded rows, and dynamic int8, whose
        range spans all rows, lets that noise into the valid ones.
        """
        graph = self.graph
        graph.node("ReduceSum", ["attention_mask", graph.integers("axis_1", [1])], "mask_sum", keepdims=0)
        graph.node("Shape", ["attention_mask"], "mask_total", start=1, end=2)
        graph.node("Shape", ["inputs_embeds"], "count_new", start=1, end=2)
        graph.node("Equal", ["count_new", graph.integers("one", [1])], "is_step")
        graph.node("Where", ["is_step", "mask_sum", "mask_total"], "valid_keys")  # (B,)
        graph.node("Sub", ["valid_keys", "one"], "last_key")
        graph.node("Cast", ["last_key"], "seqlens_k", to=INT32)

    def _slots(self) -> str:
        """(B, S): new positions end where the valid keys of their row end."""
        first = self.graph.node("Sub", ["valid_keys", "count_new"], "first_slots")
        rows = self.graph.node("Unsqueeze", [first, self.graph.integers("axis_1", [1])], "first_slot_rows")
        return new_slots(self.graph, rows)

    def attend(self, index: int, packed: str, query: str, key: str, value: str, scale: float) -> str:
        """Attention of layer `index`; either packed (B, S, (heads + 2 kv) hd), or the three apart. (B, S, heads hd)"""
        graph, shape, name = self.graph, self.shape, f"layers.{index}"
        kind, window = shape.layer_types[index], shape.windows[index]
        past = [f"past_key_values.{index}.key", f"past_key_values.{index}.value"]
        options: dict[str, Any] = {"num_heads": shape.heads, "kv_num_heads": shape.kv_heads, "scale": scale}
        if self.numbers:
            inputs = [*self._rotated(packed, name), *past, "seqlens_k", "total_sequence_length", "", ""]
        else:
            inputs = [packed, "", ""] if packed else [query, key, value]
            inputs += [*past, "seqlens_k", "total_sequence_length", *self.tables[kind]]
            options |= {"do_rotary": 1, "rotary_interleaved": 0}
        if window:
            # Not local_window_size: onnxruntime 1.23 looks one position further back with it than 1.31.
            inputs += ["", self.masks[window]]
        out = f"{name}.causal" if shape.blocks else f"{name}.attended"
        self.cache.attend(graph, index, inputs, out, options)
        if not shape.blocks:
            return out
        both_ways = graph.branch(f"{name}.pictures", lambda: self._both_ways(index, query, scale))
        causal = graph.branch(f"{name}.text", lambda: graph.node("Identity", [out], f"{name}.same"))
        return graph.node("If", ["has_pictures"], f"{name}.attended", then_branch=both_ways, else_branch=causal)

    def _both_ways(self, index: int, query: str, scale: float) -> str:
        """Attention under the mask, over the keys and values that GroupQueryAttention left in the cache."""
        graph, shape, name = self.graph, self.shape, f"layers.{index}.both_ways"
        table = self.tables[shape.layer_types[index]]
        rotated = graph.node("RotaryEmbedding", [query, "count_past", *table], f"{name}.rotated", MICROSOFT)
        apart = heads_apart(graph, rotated, shape.heads, f"{name}.query")
        zero, axis = graph.integers("axis_0", [0]), graph.integers("axis_2", [2])
        valid = [
            graph.node("Slice", [f"present.{index}.{part}", zero, "mask_total", axis], f"{name}.{part}")
            for part in ("key", "value")
        ]
        return grouped_attention(graph, apart, valid[0], valid[1], scale, self.masks[shape.windows[index]], shape, name)

    def _one_row_a_token(self) -> None:
        """M-RoPE: a table with one row for each new token, and position ids that count the tokens."""
        graph, flat = self.graph, self.graph.integers("shape_rows", [-1, self.shape.head_dim // 2])
        rows = rows_of_grids(graph, self.tables[""], self.shape)
        table = [graph.node("Reshape", [row, flat], f"{row}_of_tokens") for row in rows]
        graph.node("Shape", ["inputs_embeds"], "new_shape", start=0, end=2)
        graph.node("ReduceProd", ["new_shape"], "new_tokens", keepdims=0)
        graph.node("Range", [graph.integers("zero", 0), "new_tokens", graph.integers("step", 1)], "token_numbers")
        self.tables = {"": (table[0], table[1])}
        self.numbers = graph.node("Reshape", ["token_numbers", "new_shape"], "token_rows")

    def _rotated(self, packed: str, name: str) -> list[str]:
        """Query and key rotated by the table of tokens, and the value.

        Not by GroupQueryAttention: in a prompt of several rows it takes the positions of the first for all.
        """
        query, key, value = split_packed(self.graph, packed, self.shape, name)
        turned = [
            self.graph.node("RotaryEmbedding", [x, self.numbers, *self.tables[""]], f"{x}_rotated", MICROSOFT)
            for x in (query, key)
        ]
        return [*turned, value]


class TrtAttention:
    """Standard operators: rotation, Concat with the past, expanded heads, explicit mask, softmax.

    In the modern form rotation is one operator, and attention from the expanded heads on another. The cache stays a
    Concat there: TensorScatter would write it in place, but TensorRT has it only for caches of one fixed length.
    """

    def __init__(self, graph: Graph, text: Any, shape: TrunkShape) -> None:
        self.graph, self.shape = graph, shape
        graph.node("Shape", ["attention_mask"], "mask_total", start=1, end=2)
        graph.node("Shape", ["inputs_embeds"], "count_new", start=1, end=2)
        graph.node("Sub", ["mask_total", "count_new"], "count_past")
        slots = new_slots(graph, "count_past")
        self.masks = masks(graph, shape, shape.windows, slots)
        tables, axis = rope_tables(graph, text, shape), graph.integers("axis_1", [1])
        if shape.rope == "mrope":
            rows = {"": rows_of_grids(graph, tables[""], shape)}
        else:
            positions = self._positions()
            rows = {
                kind: rows_of_positions(graph, table, positions, f"rope{kind and '_'}{kind}")
                for kind, table in tables.items()
            }
        self.rows: dict[str, Pair] = {}
        for kind, (cos, sin) in rows.items():
            if graph.modern:
                self.rows[kind] = cos, sin
                continue
            one = graph.node("Unsqueeze", [cos, axis], f"{cos}_rows")
            self.rows[kind] = one, graph.node("Unsqueeze", [sin, axis], f"{sin}_rows")

    def attend(self, index: int, packed: str, query: str, key: str, value: str, scale: float) -> str:
        """Attention of layer `index`; either packed (B, S, (heads + 2 kv) hd), or the three apart. (B, S, heads hd)"""
        graph, shape, name = self.graph, self.shape, f"layers.{index}"
        if packed:
            query, key, value = split_packed(graph, packed, shape, name)
        rows = self.rows[shape.layer_types[index]]
        turned = rotate(graph, heads_apart(graph, query, shape.heads, f"{name}.q"), rows, f"{name}.q")
        new_keys = rotate(graph, heads_apart(graph, key, shape.kv_heads, f"{name}.k"), rows, f"{name}.k")
        new_values = heads_apart(graph, value, shape.kv_heads, f"{name}.v")
        if graph.attention != FLOAT:
            new_keys, new_values = graph.in_half(new_keys), graph.in_half(new_values)
        present = [
            graph.node("Concat", [f"past_key_values.{index}.{part}", new], f"present.{index}.{part}", axis=2)
            for part, new in (("key", new_keys), ("value", new_values))
        ]
        mask = self.masks[shape.windows[index]]
        return grouped_attention(graph, turned, present[0], present[1], scale, mask, shape, f"{name}.attended")

    def _positions(self) -> str:
        """(B, S): new tokens follow the valid slots of the past, as GroupQueryAttention counts them."""
        graph = self.graph
        zero, axis = graph.integers("axis_0", [0]), graph.integers("axis_1", [1])
        before = graph.node("Slice", ["attention_mask", zero, "count_past", axis], "mask_past")
        count = graph.node("ReduceSum", [before, axis], "valid_past", keepdims=1)
        return graph.node("Add", [count, "new_order"], "rope_positions")


def new_slots(graph: Graph, first: str) -> str:
    """first + (0, 1, ... S - 1); leaves the order of the new positions (S,) under the name new_order."""
    new = graph.node("Squeeze", ["count_new", graph.integers("axis_0", [0])], "count_new_scalar")
    graph.node("Range", [graph.integers("zero", 0), new, graph.integers("step", 1)], "new_order")
    return graph.node("Add", [first, "new_order"], "new_slots")


def masks(graph: Graph, shape: TrunkShape, windows: Sequence[int], slots: str) -> dict[int, str]:
    """Additive masks (B, 1, S, T) by window: causal or of one picture, valid, and not too far back.

    slots: where the new positions stand among the keys, (S,) or (B, S). Reads mask_total and count_past, which hold
    one number each. Equal to transformers' masks on valid rows; a padded query may see nothing at all, and its row
    is then a plain mean that nobody reads.
    """
    last, axis = graph.integers("axis_last", [-1]), graph.integers("axis_1", [1])
    zero, step = graph.integers("zero", 0), graph.integers("step", 1)
    total = graph.node("Squeeze", ["mask_total", graph.integers("axis_0", [0])], "mask_total_end")
    keys = graph.node("Range", [zero, total, step], "key_slots")
    queries = graph.node("Unsqueeze", [slots, last], "query_rows")
    allowed = graph.node("LessOrEqual", [keys, queries], "mask_causal")
    if shape.blocks:
        graph.node("Shape", ["image_blocks"], "block_rows", start=0, end=1)
        past = graph.node("Concat", ["block_rows", "count_past"], "block_past_shape", axis=0)
        graph.node("Expand", [graph.integers("no_block", [0]), past], "block_past")
        graph.node("Concat", ["block_past", "image_blocks"], "block_all", axis=1)
        of_key = graph.node("Unsqueeze", ["block_all", axis], "block_of_key")
        of_query = graph.node("Unsqueeze", ["image_blocks", last], "block_of_query")
        same = graph.node("Equal", [of_query, of_key], "block_same")
        picture = graph.node("Greater", [of_query, zero], "block_is_picture")
        inside = graph.node("And", [same, picture], "mask_pictures")
        allowed = graph.node("Or", [allowed, inside], "mask_seen")
    valid = graph.node("Cast", ["attention_mask"], "mask_valid", to=BOOL)
    valid = graph.node("Unsqueeze", [valid, axis], "mask_valid_keys")
    allowed = graph.node("And", [allowed, valid], "mask_allowed")
    made = {}
    for window in dict.fromkeys(windows):
        seen = allowed
        if window:
            first = graph.node("Sub", [queries, graph.integers(f"window_{window}", window)], f"window_{window}_before")
            near = graph.node("Greater", [keys, first], f"window_{window}_near")
            seen = graph.node("And", [allowed, near], f"window_{window}_allowed")
        made[window] = _additive(graph, seen, f"mask_{window}")
    return made


def _additive(graph: Graph, allowed: str, name: str) -> str:
    kind = np.float32 if graph.attention == FLOAT else np.float16
    scores = [graph.weight(f"{name}.{part}", np.array(value, kind)) for part, value in (("yes", 0), ("no", FORBIDDEN))]
    chosen = graph.node("Where", [allowed, *scores], f"{name}.added")
    return graph.node("Unsqueeze", [chosen, graph.integers("axis_1", [1])], name)


def split_packed(graph: Graph, packed: str, shape: TrunkShape, name: str) -> tuple[str, str, str]:
    """Query, key and value of a packed projection."""
    widths = [shape.heads * shape.head_dim, *[shape.kv_heads * shape.head_dim] * 2]
    parts = [f"{name}.query", f"{name}.key", f"{name}.value"]
    graph.node("Split", [packed, graph.integers("qkv_widths", widths)], parts, axis=-1)
    return parts[0], parts[1], parts[2]


def heads_apart(graph: Graph, x: str, heads: int, name: str) -> str:
    """(B, S, heads * d) -> (B, heads, S, d)."""
    shaped = graph.node("Reshape", [x, graph.integers(f"shape_{heads}_heads", [0, 0, heads, -1])], f"{name}.shaped")
    return graph.node("Transpose", [shaped], f"{name}.heads", perm=[0, 2, 1, 3])


def grouped_attention(
    graph: Graph, query: str, key: str, value: str, scale: float, mask: str, shape: TrunkShape, name: str
) -> str:
    """Masked attention in standard operators.

    query (B, heads, S, d) float32, key, value and mask as the graph's attention has them -> (B, S, heads * d) float32.
    key and value (B, kv, T, d).
    """
    scaled = graph.node("Mul", [query, graph.weight(f"{name}.scale", np.array(scale, np.float32))], f"{name}.scaled")
    if is_fused(graph, shape.heads, shape.head_dim):
        attended = fused_attention(graph, scaled, key, value, name, mask)
    else:
        turned = graph.node("Transpose", [key], f"{name}.keys", perm=[0, 1, 3, 2])
        keys = _expanded(graph, turned, [0, shape.heads, shape.head_dim, -1], shape, f"{name}.keys")
        values = _expanded(graph, value, [0, shape.heads, -1, shape.head_dim], shape, f"{name}.values")
        attended = softmax_attention(graph, scaled, keys, values, name, mask)
    joined = graph.node("Transpose", [attended], f"{name}.joined", perm=[0, 2, 1, 3])
    flat = graph.integers("shape_attended", [0, 0, shape.heads * shape.head_dim])
    return graph.node("Reshape", [joined, flat], name)


def _expanded(graph: Graph, x: str, dims: list[int], shape: TrunkShape, name: str) -> str:
    """Each key-value head once for every query head of its group: (B, kv, ., .) -> (B, heads, ., .)."""
    groups = shape.heads // shape.kv_heads
    if groups == 1:
        return x
    apart = graph.node("Unsqueeze", [x, graph.integers("axis_2", [2])], f"{name}_apart")
    repeated = graph.node("Expand", [apart, graph.integers("repeats", [1, 1, groups, 1, 1])], f"{name}_repeated")
    of_keys = dims[-1] == -1
    return graph.node(
        "Reshape", [repeated, graph.integers(f"shape_{'keys' if of_keys else 'values'}", dims)], f"{name}_expanded"
    )
