"""A thin ONNX graph builder: names, initialisers, nodes, and one place that saves.

The `ort` dialect: opset 21 plus com.microsoft contrib operators, loadable by onnxruntime >= 1.23.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

MICROSOFT = "com.microsoft"
OPSET = 21
IR_VERSION = 10
EXTERNAL_DATA_FROM_BYTES = 1 << 20
"""Graphs with more weight than this keep it in a `<file>_data` beside them, which onnxruntime maps into memory."""

FLOAT = TensorProto.FLOAT
INT64 = TensorProto.INT64

Dims = Sequence[str | int]


class Graph:
    """An ONNX graph under construction. Tensors are named by the caller; nodes are named after their first output."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._nodes: list[Any] = []
        self._weights: dict[str, Any] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self.layer_inputs: dict[str, str] = {}
        """Linear layer -> the tensor it multiplies; calibration reads these."""

    def input(self, name: str, kind: int, dims: Dims) -> str:
        """Declare a graph input; a string in `dims` names a free dimension."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(dims)))
        return name

    def output(self, name: str, kind: int, dims: Dims) -> None:
        """Declare a graph output that some node writes."""
        self._outputs.append(helper.make_tensor_value_info(name, kind, list(dims)))

    def weight(self, name: str, value: NDArray[Any]) -> str:
        """Add an initialiser; the same name twice is a programming error, except for a known equal constant."""
        if name in self._weights:
            raise ValueError(f"initialiser {name!r} added twice")
        self._weights[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def integers(self, name: str, values: int | Sequence[int]) -> str:
        """An int64 constant, reused when it was added before."""
        if name not in self._weights:
            self.weight(name, np.array(values, np.int64))
        return name

    def node(
        self, operator: str, inputs: Sequence[str], outputs: str | Sequence[str], domain: str = "", **attributes: Any
    ) -> str:
        """Append a node; returns its first output. An empty string skips an optional input or output."""
        names = [outputs] if isinstance(outputs, str) else list(outputs)
        self._nodes.append(helper.make_node(operator, list(inputs), names, name=names[0], domain=domain, **attributes))
        return names[0]

    def expose_layer_inputs(self) -> None:
        """Make the input of every linear layer an output as well, for calibration."""
        shown = {value.name for value in [*self._inputs, *self._outputs]}
        for name in dict.fromkeys(self.layer_inputs.values()):
            if name not in shown:
                self._outputs.append(helper.make_tensor_value_info(name, FLOAT, None))

    def model(self) -> Any:
        """The finished ModelProto, without machine, date or tool stamps, so that equal input gives equal bytes."""
        graph = helper.make_graph(self._nodes, self.name, self._inputs, self._outputs, list(self._weights.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="edgegeo")


def save(model: Any, file: Path) -> None:
    """Write a model; its weights go to `<file>_data` when they are large. OSError from the disk passes through."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if sum(len(w.raw_data) for w in model.graph.initializer) < EXTERNAL_DATA_FROM_BYTES:
        file.write_bytes(model.SerializeToString(deterministic=True))
        return
    onnx.save_model(
        model, str(file), save_as_external_data=True, all_tensors_to_one_file=True, location=f"{file.name}_data"
    )
