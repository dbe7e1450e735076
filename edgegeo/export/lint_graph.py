"""An ONNX graph as the linter's rules ask about it: who writes a tensor, who reads it, its type, its constant value."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper, shape_inference

GEMMS = ("MatMul", "Gemm", "Conv")


class LintGraph:
    """A model without its branches: the trt dialect has none."""

    def __init__(self, model: Any, folder: Path | None = None) -> None:
        """folder: where external data lies. Large weights are never read, only constants that a rule asks for."""
        self.opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
        graph = model.graph
        self.nodes: list[NodeProto] = list(graph.node)
        self.constants: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs, self.outputs = list(graph.input), list(graph.output)
        self._folder = folder
        self.writer = {name: node for node in self.nodes for name in node.output if name}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                if name:
                    self.readers.setdefault(name, []).append(node)
        values = _values(model)
        self.types = {name: value.elem_type for name, value in values.items()}
        self.types |= {name: tensor.data_type for name, tensor in self.constants.items()}
        self._values = values

    def of(self, *operators: str) -> Iterator[NodeProto]:
        """Nodes of some operators."""
        return (node for node in self.nodes if node.op_type in operators)

    def is_weight(self, node: NodeProto) -> bool:
        """Whether a DequantizeLinear reads a constant."""
        return node.input[0] in self.constants

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a constant."""
        return tuple(self.constants[name].dims)

    def size(self, name: str, axis: int = -1) -> int:
        """Size of an axis of a tensor; 0 where it is free, or onnx can't tell."""
        dims = self._values[name].shape.dim if name in self._values else ()
        return int(dims[axis].dim_value) if dims else 0

    def value(self, name: str) -> NDArray[Any] | None:
        """A constant's value; None for what is computed or can't be read."""
        tensor = self.constants.get(name)
        if tensor is None:
            return None
        try:
            return np.asarray(numpy_helper.to_array(tensor, str(self._folder or "")))
        except (OSError, ValueError, RuntimeError):
            return None


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value."""
    for one in node.attribute:
        if one.name == name:
            return helper.get_attribute_value(one)
    return default


def optional_input(node: NodeProto, place: int) -> str:
    """Name of an input that may be absent; "" where it is."""
    return str(node.input[place]) if len(node.input) > place else ""


def type_name(kind: int) -> str:
    """What ONNX calls a type, in lower case."""
    return str(TensorProto.DataType.Name(kind)).lower()


def _values(model: Any) -> dict[str, Any]:
    """Type and shape of every tensor that onnx can tell: of a graph with operators it does not know, little."""
    try:
        graph = shape_inference.infer_shapes(model).graph
    except shape_inference.InferenceError:
        graph = model.graph
    return {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info, *graph.output)}
