"""What this machine's processor reads and multiplies at most, measured in a few seconds."""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import DeviceError
from edgegeo.field.device import Device
from edgegeo.field.finding import Root
from edgegeo.field.hardware import read_memory
from edgegeo.measure import machine
from edgegeo.runtime.sessions import default_threads

SIDE = 1024
"""Side of the square matrices: large enough for the best kernels, small enough to stay in the cache."""
OVERHEAD_MB = 70.0
"""Of a process with numpy, tokenizers and onnxruntime, no model opened (measured on x86: 68 MB)."""
_BUFFER_MB = 256
_UNKNOWN_CACHE_MB = 64.0
"""Where the kernel does not tell: larger than most, so that the bound stays one."""
_UINT8, _INT8, _INT32, _FLOAT = 2, 3, 6, 1  # element types of ONNX


def measure_here(seconds: float = 1.0, root: Root | None = None) -> Device:
    """This machine's processor as a device; each ceiling is the best of what `seconds` allow.

    The best, because other programs only slow it down. On a busy machine even that is too low, and so bounds made
    with it too high.
    """
    place = root or Root()
    memory = read_memory(place)
    if memory.available < 2 * _BUFFER_MB:
        raise DeviceError(
            f"{memory.available:.0f} MB of memory are free, measuring this machine needs {2 * _BUFFER_MB}; "
            "stop other programs, or name a device"
        )
    threads = default_threads()
    gemm32 = gemm("MatMul", np.ones((SIDE, SIDE), np.float32), np.ones((SIDE, SIDE), np.float32), threads, seconds)
    gemm8 = gemm("MatMulInteger", np.ones((SIDE, SIDE), np.uint8), np.ones((SIDE, SIDE), np.int8), threads, seconds)
    told = f"measured here, {threads} threads, best of {seconds:g} s"
    return Device(
        name=f"this machine ({machine()['cpu']}, {threads} threads)", kind="cpu",
        bandwidth_gbs=bandwidth(threads, seconds), int8_tops=max(gemm8, gemm32), fp16_tflops=gemm32,
        fp32_tflops=gemm32, cache_mb=cache_mb(place), memory_mb=memory.available, overhead_mb=OVERHEAD_MB,
        source={
            "bandwidth_gbs": f"{told}: reading {_BUFFER_MB} MB", "int8_tops": f"{told}: MatMulInteger of {SIDE}^3",
            "fp32_tflops": f"{told}: MatMul of {SIDE}^3", "fp16_tflops": "computed in float32",
            "cache_mb": "the kernel's", "memory_mb": "free now, the control group's limit considered",
            "overhead_mb": "measured on x86",
        },
    )  # fmt: skip


def cache_mb(root: Root) -> float:
    """Largest cache of the first processor in 2**20 bytes."""
    found = []
    for file in root.listed("sys/devices/system/cpu/cpu0/cache/index*/size"):
        text = root.text(file)
        unit = {"K": 2**10, "M": 2**20}.get(text[-1:], 0)
        if unit and text[:-1].isdigit():
            found.append(int(text[:-1]) * unit / 2**20)
    return max(found, default=_UNKNOWN_CACHE_MB)


def bandwidth(threads: int, seconds: float) -> float:
    """10**9 bytes a second that all threads read together."""
    buffer = np.ones(_BUFFER_MB * 2**20 // 4, np.float32)
    slices = np.array_split(buffer, threads)
    with ThreadPoolExecutor(threads) as pool:
        best = _best(lambda: list(pool.map(np.max, slices)), seconds)
    return float(buffer.nbytes / best / 1e9)


def gemm(operator: str, left: NDArray[Any], right: NDArray[Any], threads: int, seconds: float) -> float:
    """10**12 operations a second of a product whose right side is a weight, as in a model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    model = _product(operator, left.shape[0], right)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    best = _best(lambda: session.run(None, {"x": left}), seconds)
    return float(2.0 * left.shape[0] * right.size / best / 1e12)


def _best(job: Callable[[], object], seconds: float) -> float:
    best, end = math.inf, time.perf_counter() + seconds
    job()
    while True:
        start = time.perf_counter()
        job()
        now = time.perf_counter()
        best = min(best, now - start)
        if now >= end:
            return best


def _product(operator: str, rows: int, weight: NDArray[Any]) -> bytes:
    """An ONNX file, y = operator(x, weight), written by hand: the package `onnx` is not for the field.

    Source: onnx.proto of ONNX 1.x (field numbers), protobuf's wire format.
    """
    kind, into, out = (_FLOAT, _FLOAT, _FLOAT) if weight.dtype == np.float32 else (_INT8, _UINT8, _INT32)
    depth, columns = weight.shape
    dims = b"".join(_number(1, size) for size in weight.shape)
    tensor = dims + _number(2, kind) + _bytes(8, b"w") + _bytes(9, weight.tobytes())
    node = _bytes(1, b"x") + _bytes(1, b"w") + _bytes(2, b"y") + _bytes(4, operator.encode())
    graph = (
        _bytes(1, node) + _bytes(2, b"g") + _bytes(5, tensor)
        + _bytes(11, _value(b"x", into, (rows, depth))) + _bytes(12, _value(b"y", out, (rows, columns)))
    )  # fmt: skip
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, b"") + _number(2, 13))


def _value(name: bytes, kind: int, shape: tuple[int, ...]) -> bytes:
    sizes = b"".join(_bytes(1, _number(1, size)) for size in shape)
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, kind) + _bytes(2, sizes)))


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
