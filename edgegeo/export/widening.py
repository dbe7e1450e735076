"""Planes of 2- and 3-bit codes, widened to 4 bits by nodes that onnxruntime folds when it opens the session."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgegeo.export.graph import Graph
from edgegeo.export.rounding import widening_tables

DOMAIN = "edgegeo"


def widened(graph: Graph, planes: Sequence[NDArray[np.uint8]], shape: Sequence[int], bits: int, name: str) -> str:
    """Store the planes of a layer's matrix and return a tensor uint8 of 4-bit codes, of `shape`."""
    parts = ("low", "high")[: len(planes)]
    stored = [graph.weight(f"{name}.weight_q{bits}_{part}", plane) for part, plane in zip(parts, planes, strict=True)]
    form = graph.integers("codes_" + "_".join(map(str, shape)), shape)
    return graph.call(_function(bits), [*stored, form], f"{name}.weight_q4")


@cache
def _function(bits: int) -> Any:
    """Of each plane every byte is looked up in a table of what it stands for; a call is one node of the file."""
    nodes, joined = [], ""
    inputs = ["low", "high"][: bits - 1]
    for plane, table in zip(inputs, widening_tables(bits), strict=True):
        value = numpy_helper.from_array(table, f"{plane}_table")
        nodes += [
            helper.make_node("Constant", [], [f"{plane}_table"], value=value),
            helper.make_node("Cast", [plane], [f"{plane}_index"], to=TensorProto.INT32),
            helper.make_node("Gather", [f"{plane}_table", f"{plane}_index"], [f"{plane}_found"]),
            helper.make_node("Reshape", [f"{plane}_found", "shape"], [f"{plane}_codes"]),
        ]
        joined = f"{plane}_codes"
    if bits == 3:
        joined = "joined"
        nodes.append(helper.make_node("BitwiseOr", ["low_codes", "high_codes"], [joined]))
    nodes.append(helper.make_node("Identity", [joined], ["codes"]))
    opsets = [helper.make_opsetid("", 21)]
    return helper.make_function(DOMAIN, f"Widen{bits}", [*inputs, "shape"], ["codes"], nodes, opsets)
