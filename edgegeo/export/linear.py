"""How a matrix is stored and multiplied: one operator choice per precision and dialect.

For onnxruntime on CPU (dialect "ort"):

| precision | stored as | multiplied by |
|---|---|---|
| fp32 | float32 | MatMul |
| fp16 | float16 | Cast to float32 (folded when the session opens), MatMul: half the disk, the same memory and speed |
| int8, dynamic | int8, one scale a column | DynamicQuantizeLinear with the range of the call, MatMulIntegerToFloat |
| int8, static | int8, one scale a column | QuantizeLinear with a calibrated range, MatMulIntegerToFloat |
| int4 | 4 bits, one scale a block | MatMulNBits |

Activations are uint8 and weights int8 because x86 has VNNI kernels for just that pair: signed activations
run 10 times slower there (measured on onnxruntime 1.31). Weights stay within +-127 and symmetric.

For TensorRT (dialect "trt") see `edgegeo.export.explicit`.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgegeo.export.graph import MICROSOFT, Graph
from edgegeo.recipe import precision_of

Array = NDArray[np.float32]

SHRINKS = np.arange(1.0, 0.74, -0.02, dtype=np.float32)
"""A 4-bit block tries its full range and these shares of it."""
SLICE = 1 << 16
"""Numbers that one thread quantises at a time: small enough for its cache, so time and memory stay bounded."""


@dataclass(frozen=True)
class Storage:
    """What `linear` emits; one per component."""

    precision: str = "fp32"
    block_size: int = 32
    accuracy_level: int = 4
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """int8 only: calibrated (low, high) of a layer's input by layer name; a layer without one is dynamic in the ort
    dialect and has quantised weights only in the trt dialect."""
    layers: Mapping[str, str] = field(default_factory=dict)
    """Precision of single layers, `Recipe.layers`."""
    component: str = ""
    """Stands before a layer's name, and a dot, where `layers` is asked for it."""
    ladder: tuple[str, ...] = ()
    """Finer precisions that a layer can be switched to while the graph runs, for measuring (`switched_linear`)."""

    def of(self, name: str) -> str:
        """Precision of a layer."""
        return precision_of(f"{self.component}.{name}" if self.component else name, self.layers, self.precision)


def linear(graph: Graph, x: str, weight: Array, bias: Array | None, name: str, storage: Storage) -> str:
    """Emit y = x W + b and return y's name.

    weight (K, N) float32 in any memory layout, bias (N,) or None; x (..., K) float32. Weight tensors are named
    `<name>.weight*`. ValueError for block sizes the dialect has no kernel for, and for values beyond float16 in fp16.
    """
    weight = np.asarray(weight, np.float32)
    graph.layer_inputs[name] = x
    precision = storage.of(name)
    if storage.ladder:
        from edgegeo.export.switched import switched_linear  # which calls this function for every precision

        return switched_linear(graph, x, weight, bias, name, storage)
    if graph.dialect == "trt":
        from edgegeo.export.explicit import explicit  # which quantises with what stands here

        return explicit(graph, x, weight, bias, name, storage, precision)
    if precision == "int8":
        return _int8(graph, x, weight, bias, name, storage.ranges.get(name))
    if precision == "int4":
        return _int4(graph, x, weight, bias, name, storage)
    if precision == "fp16":
        stored = graph.weight(f"{name}.weight_fp16", to_half(weight, name))
        matrix = graph.node("Cast", [stored], f"{name}.weight", to=1)
    else:
        matrix = graph.weight(f"{name}.weight", weight)
    return multiply(graph, x, matrix, bias, name)


def to_half(weight: Array, name: str) -> NDArray[np.float16]:
    """float16 copy; ValueError where a value would become infinite, which would silently ruin the model."""
    low, high = float(weight.min(initial=0.0)), float(weight.max(initial=0.0))
    if not max(-low, high) <= float(np.finfo(np.float16).max):
        raise ValueError(f"{name} holds values beyond float16; keep this component in fp32")
    return weight.astype(np.float16)


def quantise_columns(weight: Array) -> tuple[NDArray[np.int8], Array]:
    """Symmetric int8 with one scale per output column: (K, N) -> int8 (K, N), scale (N,) float32."""
    k, n = weight.shape
    codes, scale = np.empty((k, n), np.int8), np.empty(n, np.float32)

    def work(a: int, b: int) -> None:
        part = weight[:, a:b]
        peak = np.abs(part).max(axis=0) / np.float32(127.0)
        scale[a:b] = np.where(peak > 0, peak, np.float32(1.0))
        codes[:, a:b] = np.clip(np.rint(part / scale[a:b]), -127, 127)

    _in_slices(work, n, k)
    return codes, scale


def quantise_blocks(weight: Array, block_size: int) -> tuple[NDArray[np.uint8], Array]:
    """Symmetric 4-bit blocks along K, as MatMulNBits wants them.

    weight (K, N) -> codes (N, K/block, block/2) uint8, scales (N, K/block) float32; a last short block is zero-padded.
    The value of largest magnitude in a block maps to -8 and the zero point is 8, as onnxruntime's own quantiser
    does; of a few shrunken scales the one with the least squared error is kept, which costs nothing at run time.
    """
    k, n = weight.shape
    blocks = -(-k // block_size)
    packed = np.empty((n, blocks, block_size // 2), np.uint8)
    scales = np.empty((n, blocks), np.float32)

    def work(a: int, b: int) -> None:
        codes, scale = _fit(_cells(weight[:, a:b], block_size))
        shifted = (codes + np.float32(8)).astype(np.uint8).reshape(block_size, blocks, b - a)
        packed[a:b] = (shifted[0::2] | (shifted[1::2] << np.uint8(4))).transpose(2, 1, 0)
        scales[a:b] = scale.reshape(blocks, b - a).T

    _in_slices(work, n, k)
    return packed, scales


def as_stored(rows: Array, precision: str, block_size: int) -> Array:
    """Output rows (N, K) of a matrix as they come back from storage at a precision, float32 again.

    For what is taken out of a quantised matrix: it must say what the matrix says.
    """
    weight = np.ascontiguousarray(rows.T)
    if precision == "int8":
        columns, scale = quantise_columns(weight)
        return np.ascontiguousarray((columns * scale).T, np.float32)
    if precision == "int4":
        packed, scales = quantise_blocks(weight, block_size)
        codes = np.stack([packed & 15, packed >> 4], axis=-1).astype(np.float32) - 8
        cells = codes.reshape(*packed.shape[:2], block_size) * scales[..., None]
        return np.ascontiguousarray(cells.reshape(len(rows), -1)[:, : rows.shape[1]], np.float32)
    return rows.astype(np.float16).astype(np.float32) if precision == "fp16" else rows


def quantise_grid(weight: Array, block_size: int) -> tuple[NDArray[np.uint8], Array]:
    """Blocks like those of `quantise_blocks`, as ONNX's INT4 stores them, with positive scales.

    weight (K, N), N even, block_size dividing K -> codes (K, N/2) uint8, two signed values a byte, the first in the
    low half; scales (K/block, N) float32, zero point 0.
    """
    k, n = weight.shape
    packed = np.empty((k, n // 2), np.uint8)
    scales = np.empty((k // block_size, n), np.float32)

    def work(a: int, b: int) -> None:
        codes, scale = _fit(_cells(weight[:, a:b], block_size), positive=True)
        rows = codes.reshape(block_size, k // block_size, b - a).transpose(1, 0, 2).reshape(k, b - a)
        nibbles = rows.astype(np.int8).view(np.uint8) & np.uint8(15)
        packed[:, a // 2 : b // 2] = nibbles[:, 0::2] | (nibbles[:, 1::2] << np.uint8(4))
        scales[:, a:b] = scale.reshape(k // block_size, b - a)

    _in_slices(work, n, k)
    return packed, scales


def _cells(part: Array, block_size: int) -> Array:
    """(K, C) -> (block, K/block * C): a column is one block, so that every step runs along long rows."""
    k, c = part.shape
    blocks = -(-k // block_size)
    cells = np.zeros((block_size, blocks, c), np.float32)
    whole = k // block_size
    cells[:, :whole] = part[: whole * block_size].reshape(whole, block_size, c).transpose(1, 0, 2)
    if whole < blocks:
        cells[: k - whole * block_size, whole] = part[whole * block_size :]
    return cells.reshape(block_size, -1)


def _fit(cells: Array, positive: bool = False) -> tuple[Array, Array]:
    """Codes -8..7 (block, M) as float32 and scales (M,) of cells (block, M), with the least squared error tried.

    positive: no scale is negative, as TensorRT wants them; a block whose peak is positive then reaches 7, not -8.
    """
    low, high = cells.min(axis=0), cells.max(axis=0)
    peak = np.minimum(low, high * np.float32(-8 / 7)) if positive else np.where(high > -low, high, low)
    scale = np.ones_like(peak)
    best = np.full_like(peak, np.inf)
    work, trial = np.empty_like(cells), np.empty_like(peak)
    for shrink in SHRINKS:
        np.copyto(trial, np.where(peak == 0, np.float32(1.0), peak * shrink / np.float32(-8.0)))
        _round(cells, trial, work)
        np.multiply(work, trial, out=work)
        np.subtract(work, cells, out=work)
        np.square(work, out=work)
        error = work.sum(axis=0)
        better = error < best
        np.copyto(scale, trial, where=better)
        np.copyto(best, error, where=better)
    _round(cells, scale, work)
    return work, scale


def _round(cells: Array, scale: Array, out: Array) -> None:
    np.divide(cells, scale, out=out)
    np.rint(out, out=out)
    np.maximum(out, np.float32(-8), out=out)
    np.minimum(out, np.float32(7), out=out)


def _in_slices(work: Callable[[int, int], None], columns: int, rows: int) -> None:
    """Call work(first, past) for even slices of the columns, on every core; numpy lets go of the interpreter."""
    step = max(2, SLICE // max(rows, 1) // 2 * 2)
    pieces: Iterator[tuple[int, int]] = ((a, min(a + step, columns)) for a in range(0, columns, step))
    if columns <= step:
        work(0, columns)
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(min(cores, 8)) as pool:
        for _ in pool.map(lambda piece: work(*piece), pieces):
            pass


def multiply(graph: Graph, x: str, matrix: str, bias: Array | None, name: str) -> str:
    """x matrix + bias, the matrix being a tensor of the graph."""
    if bias is None:
        return graph.node("MatMul", [x, matrix], name)
    product = graph.node("MatMul", [x, matrix], f"{name}.product")
    return graph.node("Add", [product, graph.weight(f"{name}.bias", bias)], name)


def _int8(graph: Graph, x: str, weight: Array, bias: Array | None, name: str, span: tuple[float, float] | None) -> str:
    codes, scale = quantise_columns(weight)
    matrix = graph.weight(f"{name}.weight_int8", codes)
    scales = graph.weight(f"{name}.weight_scale", scale)
    added = graph.weight(f"{name}.bias", bias) if bias is not None else ""
    tail = ["", added] if added else []
    if span is None:
        # Matrices over one input share its quantised form; for the only one onnxruntime joins both nodes to one.
        outputs = [f"{x}.uint8", f"{x}.scale", f"{x}.zero_point"]
        quantised, a_scale, a_zero = graph.once("DynamicQuantizeLinear", [x], outputs)
        return graph.node("MatMulIntegerToFloat", [quantised, matrix, a_scale, scales, a_zero, *tail], name, MICROSOFT)
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    step = max((high - low) / 255.0, 1e-12)
    zero = int(np.clip(round(-low / step), 0, 255))
    a_scale = graph.weight(f"{name}.input_scale", np.array(step, np.float32))
    a_zero = graph.weight(f"{name}.input_zero_point", np.array(zero, np.uint8))
    quantised = graph.node("QuantizeLinear", [x, a_scale, a_zero], f"{name}.input_uint8")
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
