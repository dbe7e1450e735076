"""How a matrix is stored and multiplied: one operator choice per precision and dialect.

For onnxruntime on CPU (dialect "ort"):

| precision | stored as | multiplied by |
|---|---|---|
| fp32 | float32 | MatMul |
| fp16 | float16 | Cast to float32 (folded when the session opens), MatMul: half the disk, the same memory and speed |
| bf16 | bfloat16 | likewise; exact for checkpoints that are published in it |
| int8, dynamic | int8, one scale a column | DynamicQuantizeLinear with the range of the call, MatMulIntegerToFloat |
| int8, static | int8, one scale a column | QuantizeLinear with a calibrated range, MatMulIntegerToFloat |
| int8-blocks | 8 bits, one scale a block | MatMulNBits |
| int4 | 4 bits, one scale a block, by `Rounder` | MatMulNBits |
| int3, int2 | 3 or 2 bits, one scale a block, by `Rounder` | widened to 4 bits when the session opens, MatMulNBits: for disk and download, speed and memory are int4's |
| nf4 | 4 bits of NormalFloat (QLoRA, arXiv 2305.14314), one scale a block | MatMulBnb4: widens its weights at every call, 9 times slower than fp32 at decoding (onnxruntime 1.31): for checkpoints trained on nf4, to run just those weights |

Activations are uint8 and weights int8 because x86 has VNNI kernels for just that pair: signed activations
run 10 times slower there (measured on onnxruntime 1.31). Weights stay within +-127 and symmetric.

For TensorRT (dialect "trt") see `edgegeo.export.explicit`.
"""  # noqa: E501

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.calibration import LayerStatistics
from edgegeo.export.graph import MICROSOFT, Graph
from edgegeo.export.rounding import Packed, Rounder, narrowed_codes, quantise_blocks, quantise_columns, unpacked
from edgegeo.export.widening import widened
from edgegeo.recipe import precision_of

Array = NDArray[np.float32]

BITS = {"int2": 2, "int3": 3, "int4": 4, "int8-blocks": 8}
NF4 = 1
"""MatMulBnb4's number of the data type."""


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
    rounding: str = "nearest"
    """Method of blocks, `Recipe.rounding`."""
    statistics: Mapping[str, LayerStatistics] = field(default_factory=dict)
    """What every layer multiplies, for "gptq"."""
    factors: Mapping[str, Array] = field(default_factory=dict)
    """Tensor -> what it comes out divided by (`edgegeo.export.equalising`)."""
    kv: str = "fp32"
    """Storage of a decoder's KV cache, `Recipe.kv`."""
    ladder: tuple[str, ...] = ()
    """Finer precisions that a layer can be switched to while the graph runs, for measuring (`switched_linear`)."""

    wide: bool = False
    """Whether codes below 4 bits are stored widened, for graphs that onnxruntime can't fold (`switched_linear`)."""

    def rounder(self, name: str, x: str) -> Rounder:
        """How the matrix of a layer, which multiplies the tensor x, is rounded to blocks."""
        return Rounder(self.rounding, self.statistics.get(name), self.factors.get(x))

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
    weight, bias = _equalised(graph, x, weight, bias, name)
    if graph.dialect == "trt":
        from edgegeo.export.explicit import explicit  # which quantises with what stands here

        return explicit(graph, x, weight, bias, name, storage, precision)
    if precision == "int8":
        return _int8(graph, x, weight, bias, name, storage.ranges.get(name))
    if precision in BITS:
        return _blocks(graph, x, weight, bias, name, storage, BITS[precision])
    if precision == "nf4":
        return _nf4(graph, x, weight, bias, name, storage.block_size)
    if precision in ("fp16", "bf16"):
        stored = graph.weight(f"{name}.weight_{precision}", narrowed(weight, precision, name))
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


def narrowed(weight: Array, precision: str, name: str) -> NDArray[Any]:
    """A copy in float16 (see `to_half`) or bfloat16."""
    if precision == "fp16":
        return to_half(weight, name)
    import ml_dtypes

    return weight.astype(ml_dtypes.bfloat16)


def as_stored(rows: Array, precision: str, block_size: int, how: Rounder | None = None) -> Array:
    """Output rows (N, K) of a matrix as they come back from storage at a precision, float32 again.

    For what is taken out of a quantised matrix: it must say what the matrix says.
    """
    weight = np.ascontiguousarray(rows.T)
    if precision == "int8":
        columns, scale = quantise_columns(weight)
        return np.ascontiguousarray((columns * scale).T, np.float32)
    if precision in BITS:
        packed = quantise_blocks(weight, block_size, how, BITS[precision])
        return np.ascontiguousarray(unpacked(packed, len(weight), BITS[precision]).T)
    if precision in ("fp16", "bf16"):
        return np.asarray(narrowed(rows, precision, "head").astype(np.float32))
    return rows


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
    # Matrices over one input have one range.
    a_scale = graph.constant(f"{x}.static_scale", np.array(step, np.float32))
    a_zero = graph.constant(f"{x}.static_zero_point", np.array(zero, np.uint8))
    quantised = graph.once("QuantizeLinear", [x, a_scale, a_zero], [f"{x}.static_uint8"])[0]
    return graph.node("MatMulIntegerToFloat", [quantised, matrix, a_scale, scales, a_zero, *tail], name, MICROSOFT)


def _blocks(
    graph: Graph, x: str, weight: Array, bias: Array | None, name: str, storage: Storage, bits: int
) -> str:  # fmt: skip
    k, n = weight.shape
    packed: Packed = quantise_blocks(weight, storage.block_size, storage.rounder(name, x), bits)
    if bits < 4 and not storage.wide:
        codes = widened(graph, narrowed_codes(packed.codes, bits), packed.codes.shape, bits, name)
    else:
        codes = graph.weight(f"{name}.weight_q{max(bits, 4)}", packed.codes)
    inputs = [x, codes, graph.weight(f"{name}.weight_scale", packed.scales.reshape(-1))]
    if packed.zeros is not None:
        inputs.append(graph.weight(f"{name}.weight_zero_point", packed.zeros.reshape(-1)))
    if bias is not None:
        inputs += [*([""] * (5 - len(inputs))), graph.weight(f"{name}.bias", bias)]
    return graph.node(
        "MatMulNBits", inputs, name, MICROSOFT,
        K=k, N=n, bits=max(bits, 4), block_size=storage.block_size, accuracy_level=storage.accuracy_level,
    )  # fmt: skip


def _nf4(graph: Graph, x: str, weight: Array, bias: Array | None, name: str, block_size: int) -> str:
    from onnxruntime.capi._pybind_state import quantize_matmul_bnb4  # as onnxruntime's own MatMulBnb4Quantizer does

    k, n = weight.shape
    codes = np.zeros((weight.size + 1) // 2, np.uint8)
    absmax = np.zeros(-(-weight.size // block_size), np.float32)
    # Blocks run along the rows of the transposed matrix, one behind the other.
    quantize_matmul_bnb4(codes, np.ascontiguousarray(weight.T), absmax, block_size, NF4, n, k)
    inputs = [x, graph.weight(f"{name}.weight_nf4", codes), graph.weight(f"{name}.weight_absmax", absmax)]
    out = graph.node(
        "MatMulBnb4", inputs, name if bias is None else f"{name}.product", MICROSOFT,
        K=k, N=n, block_size=block_size, quant_type=NF4,
    )  # fmt: skip
    return out if bias is None else graph.node("Add", [out, graph.weight(f"{name}.bias", bias)], name)


def _equalised(graph: Graph, x: str, weight: Array, bias: Array | None, name: str) -> tuple[Array, Array | None]:
    """Weight and bias for an input that comes divided by its factor, and an output that is to leave so."""
    before, after = graph.factors.get(x), graph.divide(name)
    if before is not None:
        weight = weight * before[:, None]
    if after is not None:
        return weight / after, None if bias is None else bias / after
    return weight, bias
