"""How a matrix is stored and multiplied for TensorRT (dialect "trt"): explicit, symmetric, in standard operators.

| precision | stored as | multiplied by |
|---|---|---|
| fp32 | float32 | MatMul |
| fp16 | float16 | Cast, MatMul, Cast: the product itself is fp16 |
| int8 | int8, one scale a column | DequantizeLinear(axis=1), MatMul; with a calibrated range Q/DQ just before it |
| int4 | INT4 (K, N), one scale a block of 64 or 128 along K | DequantizeLinear(axis=0), MatMul |

TensorRT keeps 4 bits only where N is even and blocks divide K; other matrices take int8 there.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.export.graph import Graph
from edgegeo.export.linear import Storage, multiply, quantise_columns, quantise_grid, to_half

Array = NDArray[np.float32]

TRT_BLOCKS = (64, 128)
"""Sizes of 4-bit blocks that TensorRT multiplies."""


def explicit(
    graph: Graph, x: str, weight: Array, bias: Array | None, name: str, storage: Storage, precision: str
) -> str:
    """Emit y = x W + b and return y's name; see `edgegeo.export.linear.linear`."""
    k, n = weight.shape
    if precision == "fp32":
        return multiply(graph, x, graph.weight(f"{name}.weight", weight), bias, name)
    if precision == "fp16":
        half = graph.node("Cast", [x], f"{name}.input_fp16", to=10)
        matrix = graph.weight(f"{name}.weight_fp16", to_half(weight, name))
        product = graph.node("MatMul", [half, matrix], f"{name}.product_fp16")
        wide = graph.node("Cast", [product], name if bias is None else f"{name}.product", to=1)
        return wide if bias is None else graph.node("Add", [wide, graph.weight(f"{name}.bias", bias)], name)
    if precision == "int4" and storage.block_size not in TRT_BLOCKS:
        raise ValueError(f"TensorRT multiplies 4-bit blocks of 64 or 128, not {storage.block_size}; set block_size")
    if precision == "int4" and k % storage.block_size == 0 and n % 2 == 0:
        packed, scale = quantise_grid(weight, storage.block_size)
        inputs = [graph.weight_int4(f"{name}.weight_int4", packed, (k, n)), graph.weight(f"{name}.weight_scale", scale)]
        attributes: dict[str, Any] = {"axis": 0, "block_size": storage.block_size}
    else:
        codes, column_scale = quantise_columns(weight)
        inputs = [graph.weight(f"{name}.weight_int8", codes), graph.weight(f"{name}.weight_scale", column_scale)]
        attributes = {"axis": 1}
        if precision == "int8" and name in storage.ranges:
            x = _symmetric(graph, x, name, storage.ranges[name])
    return multiply(graph, x, graph.node("DequantizeLinear", inputs, f"{name}.weight", **attributes), bias, name)


def _symmetric(graph: Graph, x: str, name: str, span: tuple[float, float]) -> str:
    """Symmetric int8 Q/DQ of an activation, one scale for the tensor."""
    step = max(abs(span[0]), abs(span[1]), 127e-12) / 127.0
    scale = graph.weight(f"{name}.input_scale", np.array(step, np.float32))
    zero = graph.weight(f"{name}.input_zero_point", np.array(0, np.int8))
    quantised = graph.node("QuantizeLinear", [x, scale, zero], f"{name}.input_int8")
    return graph.node("DequantizeLinear", [quantised, scale, zero], f"{name}.input")
