"""How a matrix is stored and multiplied: one operator choice per precision, for onnxruntime on CPU.

| precision | stored as | multiplied by |
|---|---|---|
| fp32 | float32 | MatMul |
| fp16 | float16 | Cast to float32 (folded when the session opens), MatMul: half the disk, the same memory and speed |
| int8, dynamic | int8, one scale a column | DynamicQuantizeMatMul: activations to uint8 with the range of the call |
| int8, static | int8, one scale a column | QuantizeLinear with a calibrated range, MatMulIntegerToFloat |
| int4 | 4 bits, one scale a block | MatMulNBits |

Activations are uint8 and weights int8 because x86 has VNNI kernels for just that pair: signed activations
run 10 times slower there (measured on onnxruntime 1.31). Weights stay within +-127 and symmetric.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgegeo.export.graph import MICROSOFT, Graph

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Storage:
    """What `linear` emits; one per component."""

    precision: str = "fp32"
    block_size: int = 32
    accuracy_level: int = 4
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """int8 only: calibrated (low, high) of a layer's input by layer name; a layer without one is dynamic."""
    exempt: frozenset[str] = frozenset()
    """Layers that stay fp32 whatever the precision."""


def linear(graph: Graph, x: str, weight: Array, bias: Array | None, name: str, storage: Storage) -> str:
    """Emit y = x W + b and return y's name.

    weight (K, N) float32, bias (N,) or None; x (..., K) float32. Weight tensors are named `<name>.weight*`.
    """
    weight = np.ascontiguousarray(weight, np.float32)
    graph.layer_inputs[name] = x
    precision = "fp32" if name in storage.exempt else storage.precision
    if precision == "int8":
        return _int8(graph, x, weight, bias, name, storage.ranges.get(name))
    if precision == "int4":
        return _int4(graph, x, weight, bias, name, storage)
    if precision == "fp16":
        stored = graph.weight(f"{name}.weight_fp16", to_half(weight, name))
        matrix = graph.node("Cast", [stored], f"{name}.weight", to=1)
    else:
        matrix = graph.weight(f"{name}.weight", weight)
    if bias is None:
        return graph.node("MatMul", [x, matrix], name)
    product = graph.node("MatMul", [x, matrix], f"{name}.product")
    return graph.node("Add", [product, graph.weight(f"{name}.bias", bias)], name)


def to_half(weight: Array, name: str) -> NDArray[np.float16]:
    """float16 copy; ValueError where a value would become infinite, which would silently ruin the model."""
    if float(np.abs(weight).max(initial=0.0)) > float(np.finfo(np.float16).max):
        raise ValueError(f"{name} holds values beyond float16; keep this component in fp32")
    return weight.astype(np.float16)


def quantise_columns(weight: Array) -> tuple[NDArray[np.int8], Array]:
    """Symmetric int8 with one scale per output column: (K, N) -> int8 (K, N), scale (N,) float32."""
    scale = np.abs(weight).max(axis=0) / 127.0
    scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8), scale


def quantise_blocks(weight: Array, block_size: int) -> tuple[NDArray[np.uint8], Array]:
    """Symmetric 4-bit blocks along K, as MatMulNBits wants them.

    weight (K, N) -> codes (N, K/block, block/2) uint8, scales (N, K/block) float32; a last short block is zero-padded.
    The value of largest magnitude in a block maps to -8 and the zero point is 8, as onnxruntime's own quantiser
    does; of a few shrunken scales the one with the least squared error is kept, which costs nothing at run time.
    """
    k, n = weight.shape
    blocks = -(-k // block_size)
    padded = np.zeros((n, blocks * block_size), np.float32)
    padded[:, :k] = weight.T
    cells = padded.reshape(n, blocks, block_size)
    peak = np.take_along_axis(cells, np.abs(cells).argmax(-1, keepdims=True), -1)
    best = np.full((n, blocks, 1), np.inf, np.float32)
    scale = np.ones((n, blocks, 1), np.float32)
    for shrink in np.arange(1.0, 0.74, -0.02, dtype=np.float32):
        trial = np.where(peak == 0, 1.0, peak * shrink / -8.0).astype(np.float32)
        error = ((np.clip(np.rint(cells / trial), -8, 7) * trial - cells) ** 2).sum(-1, keepdims=True)
        scale, best = np.where(error < best, trial, scale), np.minimum(error, best)
    codes = (np.clip(np.rint(cells / scale), -8, 7) + 8).astype(np.uint8)
    packed: NDArray[np.uint8] = np.bitwise_or(codes[..., 0::2], codes[..., 1::2] << np.uint8(4), dtype=np.uint8)
    return packed, np.asarray(scale[..., 0], np.float32)


def _int8(graph: Graph, x: str, weight: Array, bias: Array | None, name: str, span: tuple[float, float] | None) -> str:
    codes, scale = quantise_columns(weight)
    matrix = graph.weight(f"{name}.weight_int8", codes)
    scales = graph.weight(f"{name}.weight_scale", scale)
    added = graph.weight(f"{name}.bias", bias) if bias is not None else ""
    if span is None:
        tail = ["", added] if added else []
        return graph.node("DynamicQuantizeMatMul", [x, matrix, scales, *tail], name, MICROSOFT)
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    step = max((high - low) / 255.0, 1e-12)
    zero = int(np.clip(round(-low / step), 0, 255))
    a_scale = graph.weight(f"{name}.input_scale", np.array(step, np.float32))
    a_zero = graph.weight(f"{name}.input_zero_point", np.array(zero, np.uint8))
    quantised = graph.node("QuantizeLinear", [x, a_scale, a_zero], f"{name}.input_uint8")
    tail = ["", added] if added else []
    return graph.node("MatMulIntegerToFloat", [quantised, matrix, a_scale, scales, a_zero, *tail], name, MICROSOFT)


def _int4(graph: Graph, x: str, weight: Array, bias: Array | None, name: str, storage: Storage) -> str:
    k, n = weight.shape
    codes, scale = quantise_blocks(weight, storage.block_size)
    inputs = [x, graph.weight(f"{name}.weight_q4", codes), graph.weight(f"{name}.weight_scale", scale.reshape(-1))]
    if bias is not None:
        inputs += ["", "", graph.weight(f"{name}.bias", bias)]
    return graph.node(
        "MatMulNBits", inputs, name, MICROSOFT,
        K=k, N=n, bits=4, block_size=storage.block_size, accuracy_level=storage.accuracy_level,
    )  # fmt: skip
