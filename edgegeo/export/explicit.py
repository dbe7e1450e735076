"""How a matrix is stored and multiplied for TensorRT (dialect "trt"): explicit, symmetric, in standard operators.

| precision | stored as | multiplied by |
|---|---|---|
| fp32 | float32 | MatMul |
| fp16 | float16 | Cast, MatMul, Cast: the product itself is fp16 |
| int8 | int8, one fp16 scale a column | the same, after DequantizeLinear(axis=1); with a calibrated range also Q/DQ just before MatMul |
| int4 | INT4 (K, N), one fp16 scale a block of 64 or 128 along K | the same, after DequantizeLinear(axis=0) |

The scale's type decides what TensorRT multiplies in, so it is fp16 wherever the weights are not fp32. Between the
matrices, norms and the residual stay float32: they cost little, and the sums of some models pass what float16 holds.
TensorRT keeps 4 bits only where N is even and blocks divide K; other matrices take int8 there, and those with blocks
too faint for float16 scales.
"""  # noqa: E501

import numpy as np
from numpy.typing import NDArray

from edgegeo.export.graph import FLOAT, Graph
from edgegeo.export.linear import Storage, multiply, to_half
from edgegeo.export.rounding import quantise_columns, quantise_grid

Array = NDArray[np.float32]

TRT_BLOCKS = (64, 128)
"""Sizes of 4-bit blocks that TensorRT multiplies."""
SMALLEST = np.float32(2.0**-20)
"""The least scale. float16 still holds it to 3 %; a smaller one would soon be 0, which TensorRT refuses."""


def explicit(
    graph: Graph, x: str, weight: Array, bias: Array | None, name: str, storage: Storage, precision: str
) -> str:
    """Emit y = x W + b and return y's name; see `edgegeo.export.linear.linear`."""
    if precision == "fp32":
        return multiply(graph, x, graph.weight(f"{name}.weight", weight), bias, name)
    half = graph.in_half(x)
    if precision == "int8" and name in storage.ranges:
        half = _symmetric(graph, half, name, storage.ranges[name])
    matrix = _matrix(graph, weight, name, storage, precision)
    product = graph.node("MatMul", [half, matrix], f"{name}.product")
    if bias is not None:
        added = graph.weight(f"{name}.bias", to_half(bias, f"{name}.bias"))
        product = graph.node("Add", [product, added], f"{name}.sum")
    return graph.node("Cast", [product], name, to=FLOAT)


def _matrix(graph: Graph, weight: Array, name: str, storage: Storage, precision: str) -> str:
    """The matrix as a float16 tensor of the graph."""
    k, n = weight.shape
    if precision == "fp16":
        return graph.weight(f"{name}.weight_fp16", to_half(weight, name))
    if precision == "int4" and storage.block_size not in TRT_BLOCKS:
        raise ValueError(f"TensorRT multiplies 4-bit blocks of 64 or 128, not {storage.block_size}; set block_size")
    if precision == "int4" and k % storage.block_size == 0 and n % 2 == 0:
        packed, scale = quantise_grid(weight, storage.block_size, storage.rounder(name, graph.layer_inputs[name]))
        if scale.min() >= SMALLEST:
            inputs = [
                graph.weight_int4(f"{name}.weight_int4", packed, (k, n)),
                graph.weight(f"{name}.weight_scale", to_half(scale, f"{name}.weight_scale")),
            ]
            return graph.node("DequantizeLinear", inputs, f"{name}.weight", axis=0, block_size=storage.block_size)
    codes, scale = quantise_columns(weight)
    faint = scale < SMALLEST
    scale[faint] = SMALLEST
    codes[:, faint] = np.rint(weight[:, faint] / SMALLEST)
    inputs = [
        graph.weight(f"{name}.weight_int8", codes),
        graph.weight(f"{name}.weight_scale", to_half(scale, f"{name}.weight_scale")),
    ]
    return graph.node("DequantizeLinear", inputs, f"{name}.weight", axis=1)


def _symmetric(graph: Graph, x: str, name: str, span: tuple[float, float]) -> str:
    """Symmetric int8 Q/DQ of an activation, one scale for the tensor."""
    step = np.array(max(abs(span[0]) / 127.0, abs(span[1]) / 127.0, SMALLEST), np.float32)
    scale = graph.weight(f"{name}.input_scale", to_half(step, f"{name}.input_scale"))
    zero = graph.weight(f"{name}.input_zero_point", np.array(0, np.int8))
    quantised = graph.node("QuantizeLinear", [x, scale, zero], f"{name}.input_int8")
    return graph.node("DequantizeLinear", [quantised, scale, zero], f"{name}.input")
