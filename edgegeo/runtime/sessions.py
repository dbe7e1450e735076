"""ONNX Runtime sessions: threads, memory and devices, and never a device other than the one asked for.

Sessions of TensorRT engines are opened by edgegeo/runtime/engines.
"""

import os
import platform
from pathlib import Path
from typing import Any

from edgegeo.errors import BundleError, DeviceError, one_line

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
MIN_ORT = (1, 23)
SMALL_GRAPH = 16 << 20
"""Bytes of weights up to which a graph is small: between those for which a second thread was measured to cost more than
it brings (2.5 MB: a token in 0.19 against 0.29 ms) and those for which it pays (106 MB)."""
_MAX_DEFAULT_THREADS = 8


def default_threads() -> int:
    """Cores this process may use, at most 8: beyond that small models only wait for each other."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MAX_DEFAULT_THREADS)


def suited_threads(weights: int, cores: int) -> int:
    """Intra-op threads that pay for a graph with so many bytes of weights: one where it is small, else all `cores`.

    Every run wakes the threads, and every operator waits for the last of them: of an operator that takes microseconds
    that is the larger part.
    """
    return 1 if weights <= SMALL_GRAPH else cores


def choose_provider(provider: str = "cpu") -> str:
    """What `provider` ("cpu", "cuda", "tensorrt", "auto") stands for on this machine; DeviceError if it is absent.

    "auto" is a device of onnxruntime's: for TensorRT it takes a bundle with engines, which `Model` looks for.
    """
    if provider not in (*PROVIDERS, "tensorrt", "auto"):
        raise DeviceError(f"unknown device '{provider}'; use cpu, cuda, tensorrt or auto")
    if provider == "tensorrt":
        from edgegeo.runtime.engines.driver import find_driver
        from edgegeo.runtime.engines.library import find_library

        find_library()
        find_driver()
        return provider
    available = _onnxruntime().get_available_providers()
    if provider == "auto":
        return "cuda" if PROVIDERS["cuda"] in available else "cpu"
    if PROVIDERS[provider] not in available:
        raise DeviceError(
            f"device '{provider}' is not in this onnxruntime (it has {', '.join(available)}); "
            "install edgegeo[gpu] instead of edgegeo[cpu], or use --provider cpu"
        )
    return provider


def open_session(
    path: str | Path, threads: int | None = None, provider: str = "cpu", graph: bytes | None = None
) -> Any:
    """An onnxruntime.InferenceSession on exactly the device asked for, all graph optimisations on.

    `threads` are the intra-op threads (default: the cores of this process, at most 8, whatever the graph; `Model` asks
    for what suits each of its own). "auto" takes CUDA where this
    onnxruntime has it; a device that is listed but does not load is a DeviceError, not a fallback. graph: what to load
    in place of the file at `path`, with the weights that lie beside it.
    """
    ort = _onnxruntime()
    device = choose_provider(provider)
    if device not in PROVIDERS:
        raise DeviceError(f"onnxruntime opens no {device} engines; open the bundle with Model, or use --provider cpu")
    if threads is not None and threads < 1:
        raise DeviceError(f"threads must be at least 1, not {threads}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or default_threads()
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # shapes change with every text, patterns would only pile up
    # Vision, trunk and head take turns: a finished session must not spin on the cores the next one needs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if int8_saturates(platform.machine(), _cpu_flags()):
        options.add_session_config_entry("session.x64quantprecision", "1")
    if graph is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(Path(path).parent))
    try:
        session = ort.InferenceSession(graph or str(path), options, providers=[PROVIDERS[device]])
    except Exception as error:  # onnxruntime raises its own classes from a private module
        text = one_line(error)
        if "GroupQueryAttention" in str(error) and "tensor(int8)" in str(error):
            raise BundleError(
                f"{path} has a KV cache in int8, which needs onnxruntime 1.31 or newer, this is {ort.__version__}; "
                "update it, or export with kv = 'fp16' or 'fp32'"
            ) from None
        raise BundleError(f"{path} can't be loaded by onnxruntime {ort.__version__} ({text})") from None
    used = session.get_providers()[0]
    if used != PROVIDERS[device]:
        raise DeviceError(
            f"device '{device}' is installed but does not start (onnxruntime fell back to {used}); "
            "check the driver and CUDA libraries, or use --provider cpu"
        )
    return session


def int8_saturates(machine: str, flags: frozenset[str]) -> bool:
    """Whether this CPU's fast 8-bit product overflows in silence: x86 without VNNI adds pairs of products in int16.

    onnxruntime then has an exact but slower way (unsigned weights). It costs 40 % where VNNI makes it needless, so it
    is asked for only here; where the flags can't be read, exactness wins.
    """
    return machine.lower() in ("x86_64", "amd64") and not flags & {"avx512_vnni", "avx_vnni"}


def _cpu_flags() -> frozenset[str]:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise DeviceError("onnxruntime is not installed; install edgegeo[cpu] (or edgegeo[gpu])") from None
    version = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    if version < MIN_ORT:
        raise DeviceError(f"onnxruntime {onnxruntime.__version__} is too old; install 1.23 or newer")
    return onnxruntime
