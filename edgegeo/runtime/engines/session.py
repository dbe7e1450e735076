"""A plan executed, with as much of an onnxruntime session's interface as this package uses.

Inputs come from host arrays or stand in device memory already (`Place`); so do outputs. Every call goes through one
stream and ends with everything in place, so results are plain arrays. Calls are one at a time.
"""

import ctypes
import math
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import EngineError, InputError
from edgegeo.runtime.engines.building import Dims
from edgegeo.runtime.engines.driver import Driver
from edgegeo.runtime.engines.library import NAMES, Library
from edgegeo.runtime.engines.shapes import Profile, beyond, choose, most_rows, sizes

KINDS: dict[str, Any] = {
    "FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "INT32": np.int32, "INT64": np.int64, "BOOL": np.bool_,
    "UINT8": np.uint8,
}  # fmt: skip
"""TensorRT's names of element types."""
_ORT = {"float32": "float", "float16": "float16", "bool_": "bool"}


@dataclass(frozen=True)
class Binding:
    """An input or output, as onnxruntime describes one."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class Place:
    """A tensor in device memory, contiguous."""

    address: int
    shape: tuple[int, ...]


Fed = NDArray[Any] | Place


class EngineSession:
    """A deserialised engine, one execution context a range of shapes, and buffers that only grow."""

    def __init__(
        self, library: Library, driver: Driver, plan: Any, dims: Mapping[str, Dims], built: Sequence[Profile]
    ) -> None:
        """plan: its bytes, needed only while this runs. EngineError where the library refuses them."""
        self.library, self.driver = library, driver
        self._built = tuple(built)
        self._lock = threading.RLock()
        driver.enter()
        library.take_errors()
        self._runtime = library.api.Runtime(library.logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(f"{library.name} refuses the engine ({library.take_errors() or 'without a word'})")
        mode = library.api.TensorIOMode
        names = [str(self._engine.get_tensor_name(i)) for i in range(self._engine.num_io_tensors)]
        modes = {name: self._engine.get_tensor_mode(name) for name in names}
        self._inputs = [name for name in names if modes[name] == mode.INPUT]
        self._outputs = [name for name in names if modes[name] == mode.OUTPUT]
        self._dims = {name: dims[name] for name in self._inputs if name in dims}
        missing = [name for name in self._inputs if name not in self._dims]
        if missing or self._engine.num_optimization_profiles != len(self._built):
            raise EngineError("the engine is not the one its record describes; run: edgegeo compile")
        self.kinds = {name: self._kind(name) for name in names}
        """Element type of every input and output."""
        self._contexts: dict[int, Any] = {}
        self._buffers: dict[str, tuple[int, int]] = {}

    def get_inputs(self) -> list[Binding]:
        """Inputs with onnxruntime's names of types; a string stands for a free axis."""
        return [Binding(name, self._ort_type(name), self._dims[name]) for name in self._inputs]

    def get_outputs(self) -> list[Binding]:
        """Outputs; None stands for a free axis."""
        shapes = {name: tuple(self._engine.get_tensor_shape(name)) for name in self._outputs}
        return [
            Binding(name, self._ort_type(name), tuple(int(n) if n >= 0 else None for n in shapes[name]))
            for name in self._outputs
        ]

    def get_providers(self) -> list[str]:
        """What runs it."""
        return [NAMES[self.library.kind]]

    def run(self, names: Sequence[str] | None, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs named (None: all), as onnxruntime gives them; batches beyond the engine's are split."""
        wanted = list(names) if names is not None else self._outputs
        found = sizes(self._dims, {name: feeds[name].shape for name in self._inputs if name in feeds})
        rows = found.get("batch", 0)
        step = most_rows(self._built, found) if choose(self._built, found) is None else rows
        if not rows or not 0 < step < rows:
            return self.execute(wanted, feeds)
        parts = [self.execute(wanted, self._rows(feeds, at, at + step)) for at in range(0, rows, step)]
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def execute(
        self, names: Sequence[str], feeds: Mapping[str, Fed], targets: Mapping[str, int] | None = None
    ) -> list[NDArray[Any]]:
        """One execution: outputs named come back as arrays, those in `targets` go to addresses on the device.

        InputError for missing inputs and for shapes that the engine was not built for.
        """
        missing = [name for name in self._inputs if name not in feeds]
        unknown = [name for name in names if name not in self._outputs]
        if missing or unknown:
            said = f"no output {unknown[0]}" if unknown else f"the input {missing[0]}, which has no value"
            raise InputError(f"the engine has {said}")
        with self._lock:
            self.driver.enter()
            context, fed = self._prepare(feeds)
            fetched: dict[str, NDArray[Any]] = {}
            places: dict[str, int] = {}
            for name in self._outputs:
                shape = tuple(int(n) for n in context.get_tensor_shape(name))
                if min(shape, default=0) < 0:
                    raise EngineError(f"{self.library.name} can't tell the shape of output {name}")
                size = math.prod(shape) * np.dtype(self.kinds[name]).itemsize
                places[name] = (targets or {}).get(name) or self._buffer(name, size)
                context.set_tensor_address(name, places[name])
                if name in names:
                    fetched[name] = np.empty(shape, self.kinds[name])
            if not context.execute_async_v3(self.driver.stream):
                raise EngineError(f"{self.library.name} failed ({self.library.take_errors() or 'without a word'})")
            for name, array in fetched.items():
                self.driver.download(places[name], array)
            self.driver.synchronize()
            del fed
        return [fetched[name] for name in names]

    def io_binding(self) -> "EngineBinding":
        """For callers that keep their arrays from call to call."""
        return EngineBinding()

    def run_with_iobinding(self, binding: "EngineBinding") -> None:
        """Run into the arrays that were bound."""
        names = list(binding.outputs)
        for name, array in zip(names, self.run(names, binding.inputs), strict=True):
            binding.outputs[name][...] = array

    def __del__(self) -> None:
        # Contexts and engine give back their own memory. While the interpreter ends, there may be no driver any more.
        with suppress(Exception):
            for address, _ in self._buffers.values():
                self.driver.free(address)

    def _prepare(self, feeds: Mapping[str, Fed]) -> tuple[Any, list[NDArray[Any]]]:
        """The context for the shapes with every input in place, and the arrays that must live until it has run."""
        found = sizes(self._dims, {name: feeds[name].shape for name in self._inputs})
        number = choose(self._built, found)
        if number is None:
            raise InputError(
                f"the engine was not compiled for {beyond(self._built, found)}; "
                "shorten the input, or compile again with a larger --batch or --length"
            )
        context, held = self._context(number), []
        for name in self._inputs:
            value = feeds[name]
            if not context.set_input_shape(name, tuple(value.shape)):
                raise EngineError(f"{self.library.name} refuses the shape {tuple(value.shape)} of input {name}")
            if isinstance(value, Place):
                context.set_tensor_address(name, value.address)
                continue
            if value.dtype != self.kinds[name]:
                raise InputError(f"input {name} must be {np.dtype(self.kinds[name]).name}, not {value.dtype.name}")
            array = np.ascontiguousarray(value)
            address = self._buffer(name, array.nbytes)
            self.driver.upload(array, address)
            context.set_tensor_address(name, address)
            held.append(array)
        return context, held

    def _context(self, number: int) -> Any:
        if number not in self._contexts:
            context = self._engine.create_execution_context()
            if context is None:
                said = self.library.take_errors() or "without a word"
                raise EngineError(f"{self.library.name} has no memory to run in ({said}); use a smaller --batch")
            if len(self._built) > 1:
                context.set_optimization_profile_async(number, self.driver.stream)
                self.driver.synchronize()
            self._contexts[number] = context
        return self._contexts[number]

    def _buffer(self, name: str, size: int) -> int:
        address, room = self._buffers.get(name, (0, -1))
        if size > room:
            if address:
                self.driver.free(address)
                del self._buffers[name]
            address = self.driver.allocate(size)
            self._buffers[name] = address, size
        return address

    def _rows(self, feeds: Mapping[str, NDArray[Any]], first: int, past: int) -> dict[str, NDArray[Any]]:
        """Some rows of a batch: of every input that has that axis."""
        taken = {}
        for name in self._inputs:
            axes = self._dims[name]
            where = axes.index("batch") if "batch" in axes else None
            cut = slice(first, past)
            taken[name] = feeds[name] if where is None else feeds[name][(slice(None),) * where + (cut,)]
        return taken

    def _kind(self, name: str) -> Any:
        said = str(self._engine.get_tensor_dtype(name)).rpartition(".")[2]
        if said not in KINDS:
            raise EngineError(f"the engine's {name} is of the type {said}, which numpy does not have")
        return KINDS[said]

    def _ort_type(self, name: str) -> str:
        kind = np.dtype(self.kinds[name]).name
        return f"tensor({_ORT.get(kind, kind)})"


class EngineBinding:
    """Arrays bound to inputs and outputs, with onnxruntime's names of the methods."""

    def __init__(self) -> None:
        self.inputs: dict[str, NDArray[Any]] = {}
        self.outputs: dict[str, NDArray[Any]] = {}

    def bind_cpu_input(self, name: str, array: NDArray[Any]) -> None:
        """Read an array at every run: what it holds then counts."""
        self.inputs[name] = array

    def bind_output(self, name: str, device: str, ordinal: int, dtype: Any, shape: Sequence[int], address: int) -> None:
        """Write an output at every run to a host array, given by its address; `device` must be "cpu"."""
        if device != "cpu":
            raise ValueError(f"outputs of an engine are bound to host arrays, not to {device}")
        kind = np.dtype(dtype)
        room = (ctypes.c_char * (math.prod(shape) * kind.itemsize)).from_address(address)
        self.outputs[name] = np.frombuffer(room, kind).reshape(tuple(shape))
