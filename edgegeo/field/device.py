"""Devices: how fast they read and multiply, by data sheet (runtime/devices/*.toml) or measured here."""

from dataclasses import dataclass
from pathlib import Path

from edgegeo.drawer import read, toml_files
from edgegeo.errors import DeviceError
from edgegeo.recipe import BLOCKS

THIS = "this"


@dataclass(frozen=True)
class Device:
    """What bounds the speed of a model."""

    name: str
    kind: str
    """"cpu" or "gpu"."""
    bandwidth_gbs: float
    """Memory bandwidth in 10**9 bytes a second."""
    int8_tops: float
    fp16_tflops: float
    fp32_tflops: float
    """Most operations a second on dense matrices, in 10**12; on a GPU, fp32 by its tensor cores (TF32)."""
    cache_mb: float
    """Last cache in 2**20 bytes: weights that fit may stay there and are not counted as read."""
    memory_mb: float
    """Memory in 2**20 bytes that programs can have, the system's own share taken off."""
    overhead_mb: float
    """Memory of the process without a model: Python, onnxruntime, and on a GPU its context and kernels."""
    source: dict[str, str]
    """Where each number comes from."""

    def __post_init__(self) -> None:
        if self.kind not in ("cpu", "gpu"):
            raise ValueError(f"kind must be cpu or gpu, not {self.kind!r}")
        for name in ("bandwidth_gbs", "int8_tops", "fp16_tflops", "fp32_tflops", "memory_mb"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0")

    def peak(self, precision: str) -> float:
        """Operations a second on weights stored so; the fastest way there is, so that the time is a lower bound.

        A CPU multiplies weights of 8 bits and fewer by 8-bit activations, others in float32; a GPU widens blocks to 16.
        """
        if self.kind == "cpu":
            return 1e12 * (self.int8_tops if precision in ("int8", *BLOCKS) else self.fp32_tflops)
        return 1e12 * {"int8": self.int8_tops, "fp32": self.fp32_tflops}.get(precision, self.fp16_tflops)


def profiles() -> dict[str, Path]:
    """Name -> file of every profile that is at hand."""
    return toml_files("runtime/devices", "field/devices")


def load_device(named: str) -> Device:
    """The profile of a name or a TOML file; DeviceError for an unknown name, InputError for a file with faults."""
    file = Path(named) if named.endswith(".toml") else profiles().get(named)
    if file is None:
        known = ", ".join([THIS, *profiles()])
        raise DeviceError(f"no profile of a device '{named}'; known are {known}, or a TOML file like those")
    return read(Device, file, "device profile")
