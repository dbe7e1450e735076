"""A thin ONNX graph builder: names, initialisers, nodes, and one place that saves.

Two dialects: `ort` is opset 21 plus com.microsoft contrib operators, loadable by onnxruntime >= 1.23; `trt` is
opset 20 without contrib operators, 21 only where a 4-bit weight needs it, loadable by TensorRT >= 10.3. `trt-modern`
is trt at opset 23 with the operators for transformers that came with it, loadable by TensorRT >= 10.15.

Large graphs never stand in memory: under `weights_to` an initialiser goes to the data file as it is added.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

MICROSOFT = "com.microsoft"
OPSETS = {"ort": 21, "trt": 20, "trt-modern": 23}
IR_VERSIONS = {20: 9, 21: 10, 23: 11}
"""The ONNX release of an opset reads up to this file version."""
EXTERNAL_DATA_FROM_BYTES = 1 << 20
"""Graphs with more weight than this keep it in a `<file>_data` beside them, which onnxruntime maps into memory."""
INLINE_BYTES = 1024
"""Smaller initialisers (shapes, axes, scalars) stay in the graph itself."""
PAGE, LINE = 4096, 64
"""Offsets in the data file: weights of a mebibyte or more start on a page, the others on a cache line."""
SLICE_BYTES = 64 << 20
"""A weight that is no contiguous array is written in slices of about this size."""

FLOAT = TensorProto.FLOAT
HALF = TensorProto.FLOAT16
INT64 = TensorProto.INT64
INT4 = TensorProto.INT4

Dims = Sequence[str | int]

_TARGET: ContextVar[Path | None] = ContextVar("_TARGET", default=None)
_FACTORS: ContextVar[Mapping[str, NDArray[np.float32]] | None] = ContextVar("_FACTORS", default=None)


def array(tensor: Any) -> NDArray[np.float32]:
    """A torch parameter as a float32 numpy array; float32 parameters are not copied, so don't write to it."""
    return np.asarray(tensor.detach().float().cpu().numpy())


@contextmanager
def weights_to(file: Path) -> Iterator[None]:
    """Graphs made inside keep no large weight in memory: each goes to `<file>_data` as it is added.

    file: the graph's own file, for which `Graph.save` must be called. One graph at a time.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    token = _TARGET.set(file)
    try:
        yield
    finally:
        _TARGET.reset(token)


@contextmanager
def divided_by(factors: Mapping[str, NDArray[np.float32]]) -> Iterator[None]:
    """In graphs made inside, each of these tensors comes out divided by its factor (channels,); products undo it.

    `Graph.save` raises ValueError where a tensor is left that nothing divides: what follows it would be wrong.
    """
    token = _FACTORS.set(factors)
    try:
        yield
    finally:
        _FACTORS.reset(token)


class Graph:
    """An ONNX graph under construction. Tensors are named by the caller; nodes are named after their first output."""

    def __init__(self, name: str, dialect: str = "ort", precision: str = "fp32") -> None:
        """precision: of the matrices. In the trt dialect, attention and KV cache follow it: float16 below fp32."""
        if dialect not in OPSETS:
            raise ValueError(f"unknown dialect {dialect!r}; use {' or '.join(OPSETS)}")
        self.name = name
        self.modern = dialect == "trt-modern"
        """Whether attention, rotation and RMS norms are operators of their own, beside standard ones."""
        self.dialect = "trt" if self.modern else dialect
        self.attention = HALF if self.dialect == "trt" and precision != "fp32" else FLOAT
        """What attention computes in and the KV cache holds: HALF or FLOAT."""
        self._halves: dict[str, str] = {}
        self._opset = OPSETS[dialect]
        self._nodes: list[Any] = []
        self._weights: dict[str, Any] = {}
        self._waiting: dict[str, NDArray[Any]] = {}
        """Values that are not in the graph itself and not written yet."""
        self._bytes = 0
        self._target = _TARGET.get()
        self._end: int | None = None
        """Length of the data file; None before it is begun."""
        self._standing: set[str] = set()
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self.factors: Mapping[str, NDArray[np.float32]] = _FACTORS.get() or {}
        """Tensor -> what it is divided by, see `divided_by`."""
        self._divided: set[str] = set()
        self._local: list[str] | None = None
        """Weights of the branch that is being added; None outside of any."""
        self._suffix = ""
        """Behind the names of what a branch adds, where it asked for one."""
        self.layer_inputs: dict[str, str] = {}
        """Linear layer -> the tensor it multiplies; calibration reads these."""
        self._functions: dict[str, Any] = {}
        self.ladders: dict[str, dict[str, int]] = {}
        """Linear layer -> bytes of its weights at each precision that it can be switched to (`switched_linear`)."""

    def input(self, name: str, kind: int, dims: Dims) -> str:
        """Declare a graph input; a string in `dims` names a free dimension."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(dims)))
        return name

    def output(self, name: str, kind: int, dims: Dims) -> None:
        """Declare a graph output that some node writes."""
        self._outputs.append(helper.make_tensor_value_info(name, kind, list(dims)))

    def weight(self, name: str, value: NDArray[Any]) -> str:
        """Add an initialiser; the same name twice is a programming error. The value must not change afterwards."""
        added = self._add(name + self._suffix, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape, value)
        if self._local is not None:
            self._local.append(added)
        return added

    def weight_int4(self, name: str, packed: NDArray[np.uint8], dims: Sequence[int]) -> str:
        """Add a signed 4-bit initialiser of shape `dims`: two values a byte in row order, the first in the low half."""
        self._opset = max(self._opset, 21)
        return self._add(name + self._suffix, INT4, dims, packed)

    def integers(self, name: str, values: int | Sequence[int]) -> str:
        """An int64 constant, reused when it was added before."""
        if name not in self._weights:
            self._add(name, INT64, np.shape(values), np.array(values, np.int64))
        return name

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """A small constant, reused when it was added before."""
        if name not in self._weights:
            self._add(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape, value)
        return name

    def divide(self, name: str) -> NDArray[np.float32] | None:
        """What the caller, who makes the tensor `name`, has to divide it by; None for nothing."""
        if name in self.factors:
            self._divided.add(name)
        return self.factors.get(name)

    def node(
        self, operator: str, inputs: Sequence[str], outputs: str | Sequence[str], domain: str = "", **attributes: Any
    ) -> str:
        """Append a node; returns its first output. An empty string skips an optional input or output."""
        if domain and self.dialect != "ort":
            raise ValueError(f"{operator} of {domain} is not an operator of the {self.dialect} dialect")
        names = [f"{one}{self._suffix}" if one else "" for one in ([outputs] if isinstance(outputs, str) else outputs)]
        self._nodes.append(helper.make_node(operator, list(inputs), names, name=names[0], domain=domain, **attributes))
        return names[0]

    def in_half(self, x: str) -> str:
        """The float32 tensor x as float16; cast once, however many ask."""
        if x not in self._halves:
            self._halves[x] = self.node("Cast", [x], f"{x}.half", to=HALF)
        return self._halves[x]

    def once(self, operator: str, inputs: Sequence[str], outputs: Sequence[str]) -> list[str]:
        """Append a node of these outputs, unless it stands already where it can be seen; returns its outputs."""
        for names in ([*outputs], [f"{one}{self._suffix}" for one in outputs]):
            if names[0] in self._standing:
                return names
        self.node(operator, inputs, outputs)
        self._standing.add(names[0])
        return names

    def call(self, function: Any, inputs: Sequence[str], output: str) -> str:
        """Append a call of an onnx FunctionProto with one output, which the model then carries once."""
        self._functions[function.name] = function
        return self.node(function.name, inputs, output, function.domain)

    def branch(self, name: str, emit: Callable[[], str], suffix: str = "") -> Any:
        """A branch for an If node: the nodes that `emit` appends, ending in the float32 tensor it returns.

        It sees every tensor of the graph around it, and holds its own weights: onnxruntime packs those of a branch
        within a branch for its kernels only there. suffix: behind the names of all it adds, so that two branches may
        hold one layer.
        """
        outside, self._local = self._local, []
        around, self._nodes = self._nodes, []
        outer, self._suffix = self._suffix, suffix
        seen, self._standing = self._standing, set(self._standing)
        try:
            result = emit()
            outputs = [helper.make_tensor_value_info(result, FLOAT, None)]
            return helper.make_graph(self._nodes, name, [], outputs, self._take_local())
        finally:
            self._local = outside
            self._nodes, self._suffix, self._standing = around, outer, seen

    def _take_local(self) -> list[Any]:
        """The weights of a branch, which leave the graph's own; make_graph copies them, so they have to be complete."""
        names = self._local or []
        if self._target is not None:
            self._write_waiting()
        for name in names:
            if name in self._waiting:
                self._weights[name].raw_data = self._waiting.pop(name).tobytes()
        return [self._weights.pop(name) for name in names]

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights so far."""
        return self._bytes

    def expose_layer_inputs(self) -> None:
        """Make the input of every linear layer an output as well, for calibration."""
        shown = {value.name for value in [*self._inputs, *self._outputs]}
        for name in dict.fromkeys(self.layer_inputs.values()):
            if name not in shown:
                self._outputs.append(helper.make_tensor_value_info(name, FLOAT, None))

    def model(self) -> Any:
        """The finished ModelProto with all weights in it, for graphs that were not made under `weights_to`."""
        if self._end is not None:
            raise ValueError(f"the weights of {self.name} are in a file; use save()")
        for name, value in self._waiting.items():
            self._weights[name].raw_data = value.tobytes()
        return self._proto()

    def save(self, file: Path) -> None:
        """Write the graph; its weights go to `<file>_data` when they are large. OSError from the disk passes through.

        Equal graphs give equal bytes. Only the data file may pass protobuf's limit of 2 GB.
        """
        if undone := sorted(set(self.factors) - self._divided):
            raise ValueError(f"nothing in {self.name} divides {undone[0]}, which is to be equalised")
        if self._target not in (None, file):
            raise ValueError(f"{self.name} was begun for {self._target}, not for {file}")
        file.parent.mkdir(parents=True, exist_ok=True)
        if self._end is None and self._bytes < EXTERNAL_DATA_FROM_BYTES:
            file.write_bytes(self.model().SerializeToString(deterministic=True))
            return
        self._target = file
        self._write_waiting()
        file.write_bytes(self._proto().SerializeToString(deterministic=True))

    def _add(self, name: str, kind: int, dims: Sequence[int], value: NDArray[Any]) -> str:
        if name in self._weights:
            raise ValueError(f"initialiser {name!r} added twice")
        if value.nbytes < INLINE_BYTES:
            proto = TensorProto(name=name, data_type=kind, dims=dims, raw_data=value.tobytes())
        else:
            proto = TensorProto(name=name, data_type=kind, dims=dims)
            self._waiting[name] = value
        self._weights[name] = proto
        self._bytes += value.nbytes
        if self._target is not None and self._bytes >= EXTERNAL_DATA_FROM_BYTES:
            self._write_waiting()
        return name

    def _write_waiting(self) -> None:
        """Append what waits to the data file and let go of it."""
        assert self._target is not None
        data = self._target.with_name(f"{self._target.name}_data")
        with data.open("wb" if self._end is None else "ab") as stream:
            self._end = self._end or 0
            for name, value in self._waiting.items():
                start = -(-self._end // (step := PAGE if value.nbytes >= 1 << 20 else LINE)) * step
                stream.write(bytes(start - self._end))
                for piece in _pieces(value):
                    stream.write(piece)
                self._end = start + value.nbytes
                proto = self._weights[name]
                proto.data_location = TensorProto.EXTERNAL
                for key, entry in (("location", data.name), ("offset", start), ("length", value.nbytes)):
                    proto.external_data.add(key=key, value=str(entry))
        self._waiting.clear()

    def _proto(self) -> Any:
        """Without machine, date or tool stamps."""
        graph = helper.make_graph(self._nodes, self.name, self._inputs, self._outputs, list(self._weights.values()))
        functions = list(self._functions.values())
        opsets = [helper.make_opsetid("", self._opset)]
        opsets += [helper.make_opsetid(domain, 1) for domain in sorted({one.domain for one in functions})]
        if self.dialect == "ort":
            opsets.append(helper.make_opsetid(MICROSOFT, 1))
        version = IR_VERSIONS[self._opset]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=version, producer_name="edgegeo", functions=functions
        )


def _pieces(value: NDArray[Any]) -> Iterator[memoryview]:
    """The bytes of an array in row order, without a second copy of the whole."""
    if value.flags.c_contiguous:
        yield value.reshape(-1).view(np.uint8).data
        return
    step = max(1, SLICE_BYTES * len(value) // value.nbytes)
    for start in range(0, len(value), step):
        yield np.ascontiguousarray(value[start : start + step]).reshape(-1).view(np.uint8).data
