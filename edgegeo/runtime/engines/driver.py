"""The CUDA driver by ctypes: device memory, copies, a stream, and what the device is.

The driver library comes with every driver, on Jetsons too, so neither the CUDA toolkit nor a Python package of it is
needed. Source: CUDA driver API reference (stable names and layouts since CUDA 4).
"""

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from ctypes import byref, c_char, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from edgegeo.errors import DeviceError

LIBRARIES = ("libcuda.so.1", "libcuda.so")
OTHERWISE = "use --provider cpu"
ALIGNMENT = 256
"""TensorRT's kernels may assume addresses that are multiples of this, which is what cuMemAlloc gives."""
_DEVICE = 2
"""CU_MEMORYTYPE_DEVICE"""
_NONBLOCKING = 1
"""CU_STREAM_NON_BLOCKING"""
_SM_COUNT, _CC_MAJOR, _CC_MINOR, _INTEGRATED = 16, 75, 76, 18
"""Numbers of CUdevice_attribute."""


class _Copy2D(ctypes.Structure):
    """CUDA_MEMCPY2D"""

    _fields_ = (
        ("src_x", c_size_t), ("src_y", c_size_t), ("src_type", c_uint), ("src_host", c_void_p),
        ("src_device", c_uint64), ("src_array", c_void_p), ("src_pitch", c_size_t),
        ("dst_x", c_size_t), ("dst_y", c_size_t), ("dst_type", c_uint), ("dst_host", c_void_p),
        ("dst_device", c_uint64), ("dst_array", c_void_p), ("dst_pitch", c_size_t),
        ("width", c_size_t), ("height", c_size_t),
    )  # fmt: skip


@dataclass(frozen=True)
class Chip:
    """A device as plans depend on it."""

    name: str
    capability: str
    """Compute capability, e.g. "8.7"."""
    processors: int
    """Streaming multiprocessors: modules of one chip differ in them."""
    shared_memory: bool
    """Whether the processor and the device share one memory (Jetson)."""

    def __str__(self) -> str:
        return f"{self.name}, sm_{self.capability.replace('.', '')}, {self.processors} SMs"


class Driver:
    """One device, its memory and one stream. Safe to call from any thread."""

    def __init__(self, library: Any = None, ordinal: int = 0, otherwise: str = OTHERWISE) -> None:
        """library: a loaded driver, by default the system's. DeviceError where there is no driver or no device.

        otherwise: what that error says can be done instead.
        """
        self._cuda = library if library is not None else _load(otherwise)
        self._call("cuInit", c_uint(0))
        count = c_int()
        self._call("cuDeviceGetCount", byref(count))
        if count.value <= ordinal:
            raise DeviceError(f"the NVIDIA driver finds no GPU; check nvidia-smi, or {otherwise}")
        self._device = c_int()
        self._call("cuDeviceGet", byref(self._device), c_int(ordinal))
        # The primary context is the one that TensorRT's CUDA runtime uses, too.
        self._context = c_void_p()
        self._call("cuDevicePrimaryCtxRetain", byref(self._context), self._device)
        self.enter()
        self._stream = c_void_p()
        self._call("cuStreamCreate", byref(self._stream), c_uint(_NONBLOCKING))

    def __del__(self) -> None:
        with suppress(Exception):  # it was never made, or the interpreter ends
            self._cuda.cuStreamDestroy_v2(self._stream)

    @property
    def stream(self) -> int:
        """Handle of the stream that all copies and executions go through."""
        return int(self._stream.value or 0)

    def enter(self) -> None:
        """Make the device's context current in this thread; needed once a thread, and free afterwards."""
        self._call("cuCtxSetCurrent", self._context)

    def chip(self) -> Chip:
        """What the device is."""
        name = (c_char * 256)()
        self._call("cuDeviceGetName", name, c_int(256), self._device)
        major, minor = self._attribute(_CC_MAJOR), self._attribute(_CC_MINOR)
        said = name.value.decode(errors="replace")
        return Chip(said, f"{major}.{minor}", self._attribute(_SM_COUNT), bool(self._attribute(_INTEGRATED)))

    def memory(self) -> tuple[int, int]:
        """(free, all) bytes of the device; on a Jetson the kernel's MemAvailable says more."""
        free, whole = c_size_t(), c_size_t()
        self.enter()
        self._call("cuMemGetInfo_v2", byref(free), byref(whole))
        return int(free.value), int(whole.value)

    def allocate(self, size: int) -> int:
        """Address of `size` bytes of device memory, never 0 and never the same twice; DeviceError when none is left."""
        address = c_uint64()
        self.enter()
        self._call("cuMemAlloc_v2", byref(address), c_size_t(max(size, ALIGNMENT)))
        return int(address.value)

    def free(self, address: int) -> None:
        """Give memory back."""
        self.enter()
        self._call("cuMemFree_v2", c_uint64(address))

    def upload(self, array: NDArray[Any], address: int) -> None:
        """Copy a contiguous array to the device; it must live until `synchronize`."""
        if array.nbytes:
            self._call("cuMemcpyHtoDAsync_v2", c_uint64(address), c_void_p(array.ctypes.data),
                       c_size_t(array.nbytes), self._stream)  # fmt: skip

    def download(self, address: int, array: NDArray[Any]) -> None:
        """Copy from the device into a contiguous array, which holds it after `synchronize`."""
        if array.nbytes:
            self._call("cuMemcpyDtoHAsync_v2", c_void_p(array.ctypes.data), c_uint64(address),
                       c_size_t(array.nbytes), self._stream)  # fmt: skip

    def copy(self, source: int, target: int, size: int) -> None:
        """Copy between places of the device that don't overlap."""
        if size:
            self._call("cuMemcpyDtoDAsync_v2", c_uint64(target), c_uint64(source), c_size_t(size), self._stream)

    def copy_rows(self, source: int, target: int, rows: int, width: int, pitches: Sequence[int]) -> None:
        """Copy the first `width` bytes of each of `rows` rows; pitches: bytes from row to row, (source, target)."""
        if rows and width:
            both = _Copy2D(
                src_type=_DEVICE, src_device=source, src_pitch=pitches[0],
                dst_type=_DEVICE, dst_device=target, dst_pitch=pitches[1], width=width, height=rows,
            )  # fmt: skip
            self._call("cuMemcpy2DAsync_v2", byref(both), self._stream)

    def synchronize(self) -> None:
        """Wait until everything given to the stream is done; DeviceError if some of it failed."""
        self._call("cuStreamSynchronize", self._stream)

    def _attribute(self, number: int) -> int:
        value = c_int()
        self._call("cuDeviceGetAttribute", byref(value), c_int(number), self._device)
        return value.value

    def _call(self, name: str, *arguments: Any) -> None:
        code = int(getattr(self._cuda, name)(*arguments))
        if code:
            raise DeviceError(self._explain(name, code))

    def _explain(self, name: str, code: int) -> str:
        text = c_char_p()
        said = f"error {code}"
        if not self._cuda.cuGetErrorString(c_int(code), byref(text)) and text.value:
            said = text.value.decode(errors="replace")
        remedy = "check the driver with nvidia-smi, or use --provider cpu"
        if code == 2:  # CUDA_ERROR_OUT_OF_MEMORY
            remedy = "stop other programs, or compile for a smaller --batch or --length"
        return f"the CUDA driver reports '{said}' ({name}); {remedy}"


def find_driver(otherwise: str = OTHERWISE) -> Driver:
    """The first device of this machine; DeviceError, with what to do `otherwise`, without a driver or a device."""
    return Driver(otherwise=otherwise)


def _load(otherwise: str) -> Any:
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise DeviceError(f"there is no NVIDIA driver on this machine (libcuda.so.1); {otherwise}")
