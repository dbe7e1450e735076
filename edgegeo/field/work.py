"""What the stages of a model compute and read: multiplications, weights, keys and values.

Counted are the matrices and the attention, exactly; left out is all else (norms, softmax, rotary positions, copies), so
that the counts are lower bounds.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from edgegeo.field.shape import Shape
from edgegeo.recipe import BLOCKS, BYTES

SCALE_BYTES = 4


@dataclass(frozen=True)
class Work:
    """One stage on one device, once."""

    matrix_flops: Mapping[str, float]
    """Precision of the weights -> operations (a multiplication and an addition are two)."""
    attention_flops: float
    weight_bytes: float
    """Weights read, each once."""
    kv_bytes: float
    """Keys and values read."""

    @property
    def flops(self) -> float:
        """All operations."""
        return sum(self.matrix_flops.values()) + self.attention_flops

    def __add__(self, other: "Work") -> "Work":
        names = {*self.matrix_flops, *other.matrix_flops}
        return Work(
            {n: self.matrix_flops.get(n, 0.0) + other.matrix_flops.get(n, 0.0) for n in sorted(names)},
            self.attention_flops + other.attention_flops,
            self.weight_bytes + other.weight_bytes,
            self.kv_bytes + other.kv_bytes,
        )

    def times(self, count: int) -> "Work":
        """The stage `count` times, one after the other."""
        flops = {name: value * count for name, value in self.matrix_flops.items()}
        return Work(flops, self.attention_flops * count, self.weight_bytes * count, self.kv_bytes * count)


@dataclass(frozen=True)
class Precisions:
    """What each part's weights are stored as: fp32, fp16, int8 or int4."""

    vision: str
    text: str
    head: str
    block: int = 32
    """Blocks and nf4: weights that share one scale."""
    cache: str = "fp32"
    """Storage of the KV cache on a CPU."""

    def size(self, weights: int, stored: str) -> float:
        """Bytes of matrices; scales of int8 are too few to count."""
        scales = SCALE_BYTES / self.block if stored in (*BLOCKS, "nf4") else 0.0
        return weights * (BYTES[stored] + scales)


def vision_work(shape: Shape, how: Precisions, tiles: int = 1, pixels: int = 0) -> Work:
    """One picture through the tower: `tiles` squares, or `pixels` of area at native resolution."""
    tower = shape.tower
    count, tokens = tower.positions(pixels), tower.image_tokens(pixels)
    patches = count - tower.extra_positions
    each = tower.patch_weights * patches + tower.layers.weights * count + tower.connector * tokens + tower.pooled
    # A windowed layer's patch sees at most a window of them.
    near = min(count, tower.window) if tower.window else count
    windowed = tower.layers.count - tower.full_layers
    seen = tower.full_layers * count * count + windowed * count * near
    attention = 4.0 * tower.layers.heads * tower.layers.head_dim * seen
    return Work({how.vision: 2.0 * each * tiles}, attention * tiles, how.size(tower.weights, how.vision), 0.0)


def text_work(shape: Shape, how: Precisions, length: int, past: int = 0, batch: int = 1, kv_bytes: int = 4) -> Work:
    """`length` positions through the decoder behind `past` others (or through the text tower), for each of `batch`."""
    layers = shape.text
    seen = sum(_seen(length, past, window, shape.dual) for window in shape.windows)
    flops = 2.0 * (layers.weights * length + shape.text_projection) * batch
    attention = 4.0 * layers.heads * layers.head_dim * seen * batch
    kept = sum(min(past, window - 1) if window else past for window in shape.windows)
    kv = 0.0 if not past else 2.0 * kept * layers.kv_heads * layers.head_dim * kv_bytes * batch
    weights = how.size(layers.weights + shape.text_projection, how.text)
    return Work({how.text: flops}, attention, weights, kv)


def head_work(shape: Shape, how: Precisions, batch: int = 1) -> Work:
    """One position's hidden state to logits."""
    return Work({how.head: 2.0 * shape.head_weights * batch}, 0.0, how.size(shape.head_weights, how.head), 0.0)


def _seen(length: int, past: int, window: int, both_ways: bool) -> int:
    """Pairs of positions that one layer compares."""
    if both_ways:
        return length * length
    if not window:
        return length * past + length * (length + 1) // 2
    return sum(min(past + i + 1, window) for i in range(length))
