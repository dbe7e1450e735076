"""A machine with a GPU, simulated where there is none: a CUDA driver over host memory, and a TensorRT over onnxruntime.

The driver is a real shared library, compiled from the C below against the published signatures, so that the ctypes
side is tested whole. Fresh memory is filled with NaNs. The library has the parts of TensorRT's Python API that
edgegeo uses; its plans are ONNX graphs, and it is as strict as TensorRT about shapes, addresses and their alignment.
It shows that the code around an engine is right. What TensorRT itself makes of a graph, it can't show.
"""

import ctypes
import enum
import json
import subprocess
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = b"SIMULATED-PLAN\0"
C_SOURCE = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
typedef unsigned long long CUdeviceptr;
typedef struct { size_t srcXInBytes, srcY; int srcMemoryType; const void *srcHost; CUdeviceptr srcDevice;
  void *srcArray; size_t srcPitch, dstXInBytes, dstY; int dstMemoryType; void *dstHost; CUdeviceptr dstDevice;
  void *dstArray; size_t dstPitch, WidthInBytes, Height; } CUDA_MEMCPY2D;
static long live = 0, entered = 0; static size_t room = (size_t)1 << 40; static int devices = 1;
long sim_live(void) { return live; }
void sim_room(size_t bytes) { room = bytes; }
void sim_devices(int n) { devices = n; }
int cuInit(unsigned f) { return f; }
int cuDeviceGetCount(int *n) { *n = devices; return 0; }
int cuDeviceGet(int *d, int o) { *d = o; return 0; }
int cuDevicePrimaryCtxRetain(void **c, int d) { *c = (void *)(uintptr_t)(77 + d); return 0; }
int cuCtxSetCurrent(void *c) { entered = c == (void *)77; return entered ? 0 : 201; }
int cuStreamCreate(void **s, unsigned f) { *s = (void *)5; return f == 1 ? 0 : 1; }
int cuStreamDestroy_v2(void *s) { return s == (void *)5 ? 0 : 400; }
int cuStreamSynchronize(void *s) { return s == (void *)5 ? 0 : 400; }
int cuDeviceGetName(char *n, int l, int d) { strncpy(n, "Simulated Orin", l); return d; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 16 ? 8 : a == 75 ? 8 : a == 76 ? 7 : a == 18 ? 1 : -1;
  return *v < 0; }
int cuMemAlloc_v2(CUdeviceptr *p, size_t n) {
  if (!entered) return 201; if (n > room) return 2;
  size_t whole = (n + 255) / 256 * 256; void *m = aligned_alloc(256, whole);
  memset(m, 0xFF, whole); live++; *p = (CUdeviceptr)(uintptr_t)m; return 0; }
int cuMemGetInfo_v2(size_t *f, size_t *t) { *t = (size_t)8 << 30; *f = *t - live; return 0; }
int cuMemFree_v2(CUdeviceptr p) { free((void *)(uintptr_t)p); live--; return 0; }
int cuMemcpyHtoDAsync_v2(CUdeviceptr d, const void *s, size_t n, void *q) { memcpy((void *)(uintptr_t)d, s, n);
  return q == (void *)5 ? 0 : 400; }
int cuMemcpyDtoHAsync_v2(void *d, CUdeviceptr s, size_t n, void *q) { memcpy(d, (void *)(uintptr_t)s, n);
  return q == (void *)5 ? 0 : 400; }
int cuMemcpyDtoDAsync_v2(CUdeviceptr d, CUdeviceptr s, size_t n, void *q) {
  memcpy((void *)(uintptr_t)d, (void *)(uintptr_t)s, n); return q == (void *)5 ? 0 : 400; }
int cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *c, void *q) {
  if (c->srcMemoryType != 2 || c->dstMemoryType != 2 || c->WidthInBytes > c->srcPitch || c->WidthInBytes > c->dstPitch)
    return 1;
  for (size_t y = 0; y < c->Height; y++)
    memcpy((char *)(uintptr_t)c->dstDevice + y * c->dstPitch, (char *)(uintptr_t)c->srcDevice + y * c->srcPitch,
           c->WidthInBytes);
  return q == (void *)5 ? 0 : 400; }
int cuGetErrorString(int e, const char **s) { *s = e == 2 ? "out of memory" : "simulated fault"; return 0; }
"""
ELEMENTS = {1: "FLOAT", 10: "HALF", 7: "INT64", 6: "INT32", 9: "BOOL", 3: "INT8"}
NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "INT32": np.int32, "BOOL": np.bool_}
DataType = enum.Enum("DataType", list(ELEMENTS.values()))


def compile_driver(folder: Path) -> Path:
    """The simulated libcuda.so.1 (needs a C compiler)."""
    source, library = folder / "cuda.c", folder / "libcuda.so.1"
    source.write_text(C_SOURCE)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
    return library


class Severity(enum.Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    Severity = Severity

    def log(self, severity: Severity, message: str) -> None:
        raise NotImplementedError


class Flag(enum.IntEnum):
    STRONGLY_TYPED = 1


class Pool(enum.Enum):
    WORKSPACE = 0


class Mode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


class Tensor:
    def __init__(self, value: Any) -> None:
        self.name = value.name
        dims = value.type.tensor_type.shape.dim
        self.names = [dim.dim_param for dim in dims]
        self.shape = tuple(-1 if dim.dim_param else dim.dim_value for dim in dims)

    def get_dimension_name(self, axis: int) -> str:
        return self.names[axis]


class Network:
    def __init__(self, flags: int) -> None:
        assert flags == 1 << Flag.STRONGLY_TYPED, "strongly typed, and nothing else"
        self.model: Any = None

    @property
    def num_inputs(self) -> int:
        return len(self.model.graph.input)

    def get_input(self, number: int) -> Tensor:
        return Tensor(self.model.graph.input[number])


class Problem:
    def __init__(self, node: Any) -> None:
        self.node = node

    def node_name(self) -> str:
        return self.node.name

    def node_operator(self) -> str:
        return self.node.op_type

    def desc(self) -> str:
        return f"no importer for {self.node.op_type}"


class OnnxParser:
    def __init__(self, network: Network, logger: ILogger) -> None:
        self.network, self.faults = network, []

    def parse_from_file(self, path: str) -> bool:
        import onnx

        model = onnx.load(path)
        self.faults = [Problem(node) for node in model.graph.node if node.domain or "Simplified" in node.op_type]
        self.network.model = model
        return not self.faults

    @property
    def num_errors(self) -> int:
        return len(self.faults)

    def get_error(self, number: int) -> Problem:
        return self.faults[number]


class OptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[Any]] = {}

    def set_shape(self, name: str, least: Any, usual: Any, most: Any) -> None:
        assert all(a <= b <= c for a, b, c in zip(least, usual, most, strict=True))
        self.shapes[name] = [list(least), list(usual), list(most)]


class BuilderConfig:
    def __init__(self) -> None:
        self.profiles: list[OptimizationProfile] = []
        self.builder_optimization_level = 3
        self.workspace = 0
        self.timings = b""

    def set_memory_pool_limit(self, pool: Pool, size: int) -> None:
        self.workspace = size

    def add_optimization_profile(self, profile: OptimizationProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, known: bytes) -> Any:
        return None if known not in (b"", b"measured") else self

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        return not ignore_mismatch

    def get_timing_cache(self) -> Any:
        return types.SimpleNamespace(serialize=lambda: b"measured")


class Context:
    def __init__(self, engine: "Engine") -> None:
        self.engine, self.profile = engine, 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.known: dict[Any, dict[str, tuple[int, ...]]] = {}

    def set_optimization_profile_async(self, number: int, stream: int) -> bool:
        self.profile = number
        return stream == 5

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        ends = self.engine.profiles[self.profile].get(name)
        if ends and not all(a <= n <= b for a, n, b in zip(ends[0], shape, ends[2], strict=True)):
            return False
        self.shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        key = tuple(sorted(self.shapes.items()))
        if key not in self.known:
            zeros = {n: np.zeros(shape, self.engine.kind(n)) for n, shape in self.shapes.items()}
            if "attention_mask" in zeros:
                zeros["attention_mask"] += 1
            outputs = self.engine.session.run(self.engine.outputs, zeros)
            self.known[key] = {n: value.shape for n, value in zip(self.engine.outputs, outputs, strict=True)}
        return self.known[key][name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address > 0, name
        assert address % 256 == 0, name
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 5
        assert set(self.addresses) == {*self.engine.inputs, *self.engine.outputs}
        feeds = {}
        for name in self.engine.inputs:
            shape, kind = self.shapes[name], np.dtype(self.engine.kind(name))
            value = np.zeros(shape, kind)
            ctypes.memmove(value.ctypes.data, self.addresses[name], value.nbytes)
            feeds[name] = value
        for name, value in zip(self.engine.outputs, self.engine.session.run(self.engine.outputs, feeds), strict=True):
            whole = np.ascontiguousarray(value)
            assert whole.shape == self.get_tensor_shape(name)
            ctypes.memmove(self.addresses[name], whole.ctypes.data, whole.nbytes)
        return True


class Engine:
    def __init__(self, model: bytes, profiles: list[Any]) -> None:
        import onnx
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        graph = onnx.load_from_string(model).graph
        self.inputs, self.outputs = [v.name for v in graph.input], [v.name for v in graph.output]
        self.values = {value.name: value for value in (*graph.input, *graph.output)}
        self.profiles = profiles
        self.num_io_tensors = len(self.values)
        self.num_optimization_profiles = len(profiles)

    def kind(self, name: str) -> Any:
        return NUMPY[self.get_tensor_dtype(name).name]

    def get_tensor_name(self, number: int) -> str:
        return [*self.inputs, *self.outputs][number]

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.INPUT if name in self.inputs else Mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return DataType[ELEMENTS[self.values[name].type.tensor_type.elem_type]]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return Tensor(self.values[name]).shape

    def create_execution_context(self) -> Context:
        return Context(self)


def simulated_tensorrt(version: str = "10.3.0.30", **changes: Any) -> types.ModuleType:
    """The module; plans of one version are refused by another. changes: attributes to replace."""

    class Builder:
        def __init__(self, logger: ILogger) -> None:
            self.logger = logger

        def create_network(self, flags: int) -> Network:
            return Network(flags)

        def create_builder_config(self) -> BuilderConfig:
            return BuilderConfig()

        def create_optimization_profile(self) -> OptimizationProfile:
            return OptimizationProfile()

        def build_serialized_network(self, network: Network, config: BuilderConfig) -> bytes:
            head = json.dumps({"version": version, "profiles": [one.shapes for one in config.profiles]}).encode()
            return MAGIC + head + b"\0" + network.model.SerializeToString()

    class Runtime:
        def __init__(self, logger: ILogger) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, plan: Any) -> Engine | None:
            head, _, model = bytes(plan)[len(MAGIC) :].partition(b"\0")
            facts = json.loads(head)
            if facts["version"] != version:
                self.logger.log(Severity.ERROR, f"Version mismatch: {facts['version']}, expected {version}")
                return None
            return Engine(model, facts["profiles"])

    module = types.ModuleType("tensorrt")
    module.__spec__ = ModuleSpec("tensorrt", None)
    parts = {
        "__version__": version, "ILogger": ILogger, "Builder": Builder, "OnnxParser": OnnxParser, "Runtime": Runtime,
        "NetworkDefinitionCreationFlag": Flag, "MemoryPoolType": Pool, "TensorIOMode": Mode,
    }  # fmt: skip
    for name, value in {**parts, **changes}.items():
        setattr(module, name, value)
    return module
