"""NVIDIA boards and GPUs: which release they run, their libraries, their power mode.

Sources: NVIDIA Jetson Linux Developer Guide (nv_tegra_release, nvpmodel); file names of CUDA, cuDNN and TensorRT.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgegeo.field.finding import FAIL, OK, WARN, Finding, Root

JETPACKS = {34: 5, 35: 5, 36: 6, 38: 7, 39: 7}
"""Major release of Jetson Linux (L4T) -> JetPack."""
LIBRARIES = {"CUDA": "libcudart.so", "cuBLAS": "libcublas.so", "cuDNN": "libcudnn.so", "TensorRT": "libnvinfer.so"}
_NEEDED = ("CUDA", "cuBLAS", "cuDNN")
"""Libraries without which onnxruntime's CUDA provider does not start."""
_PLACES = (
    "usr/local/cuda*/lib64", "usr/local/cuda*/targets/*/lib", "usr/lib/*-linux-gnu", "usr/lib/*-linux-gnu/nvidia",
    "usr/lib64", "usr/lib",
)  # fmt: skip
_RELEASE = re.compile(r"R(\d+) \(release\), REVISION: ([\d.]+)")
_MODEL = re.compile(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Gpu:
    """What was found of NVIDIA's software."""

    board: str
    """The board's name on a Jetson, else empty."""
    l4t: str
    """Release of Jetson Linux, as "36.4.3"; empty elsewhere."""
    jetpack: str
    """As "6.2" where the package says so, else the major number; empty elsewhere."""
    driver: str
    """Version of a discrete GPU's driver; empty without one."""
    libraries: dict[str, str]
    """Name -> version by the file's name, of `LIBRARIES` that were found."""

    @property
    def present(self) -> bool:
        """Whether there is an NVIDIA GPU to use."""
        return bool(self.l4t or self.driver)


def find_gpu(root: Root, folders: Sequence[Path] = ()) -> Gpu:
    """Look for a Jetson, a driver and libraries; `folders`: more places of libraries (wheels, LD_LIBRARY_PATH)."""
    release = _RELEASE.search(root.text("etc/nv_tegra_release"))
    l4t = f"{release[1]}.{release[2]}" if release else ""
    board = root.text("proc/device-tree/model") if l4t else ""
    driver = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)\s", root.text("proc/driver/nvidia/version"))
    places = [root.path / place for pattern in _PLACES for place in root.listed(pattern)]
    found = {name: version for name, file in LIBRARIES.items() if (version := _version(file, [*places, *folders]))}
    return Gpu(board, l4t, _jetpack(root, l4t), driver[1] if driver else "", found)


def examine_gpu(gpu: Gpu, onnxruntime: str, cuda: bool) -> Iterator[Finding]:
    """Findings; onnxruntime: version of an installed onnxruntime-gpu or "", cuda: whether its CUDA provider starts."""
    if gpu.l4t:
        name = f"{gpu.board or 'Jetson'}, JetPack {gpu.jetpack or 'unknown'} (L4T {gpu.l4t})"
        old = gpu.jetpack.startswith("5")
        remedy = "its Python 3.8 is too old for edgegeo; flash JetPack 6 or newer" if old else ""
        yield Finding("jetson", FAIL if old else OK, name, remedy)
    if not gpu.present:
        yield Finding("gpu", OK, "no NVIDIA GPU: the processor does the work")
        return
    listed = ", ".join(f"{name} {version}" for name, version in gpu.libraries.items()) or "no CUDA libraries"
    found = f"driver {gpu.driver}, {listed}" if gpu.driver else listed
    lacking = [name for name in _NEEDED if name not in gpu.libraries]
    if not onnxruntime:
        how = "NVIDIA's onnxruntime-gpu wheel for this JetPack" if gpu.l4t else "edgegeo[gpu] instead of edgegeo[cpu]"
        remedy = f"onnxruntime has no CUDA here, so the GPU is idle; install {how}"
        yield Finding("gpu", WARN, found, remedy)
    elif lacking:
        how = "sudo apt install nvidia-jetpack" if gpu.l4t else "install them from NVIDIA"
        yield Finding("gpu", WARN, found, f"{', '.join(lacking)} not found: {how}")
    elif (built := _built_for(onnxruntime)) and built != gpu.libraries["CUDA"].split(".")[0]:
        remedy = f"onnxruntime-gpu {onnxruntime} is built for CUDA {built}; install the release for this one"
        yield Finding("gpu", WARN, found, remedy)
    else:
        remedy = "" if cuda else "CUDA does not start; see `edgegeo verify --provider cuda` and the driver's log"
        yield Finding("gpu", OK if cuda else WARN, found, remedy)


def power_mode(root: Root) -> Finding | None:
    """nvpmodel's mode; None where there is no nvpmodel."""
    found = re.search(r"pmode:(\d+)", root.text("var/lib/nvpmodel/status"))
    if not found:
        return None
    mode = int(found[1])
    names = {int(number): name for number, name in _MODEL.findall(root.text("etc/nvpmodel.conf"))}
    fastest = [number for number, name in names.items() if name.startswith("MAXN")]
    said = f"mode {mode}" + (f", {names[mode]}" if mode in names else "")
    if not fastest or mode in fastest:
        return Finding("power mode", OK, said)
    return Finding("power mode", WARN, said, f"a slower mode; all the board has: sudo nvpmodel -m {fastest[0]}")


def _version(file: str, places: Sequence[Path]) -> str:
    """The longest version behind a library's name, of the first place that has it."""
    for place in places:
        try:
            tails = [found.name.removeprefix(file).lstrip(".") for found in place.glob(f"{file}*")]
        except OSError:
            continue
        if versions := [tail for tail in tails if re.fullmatch(r"[\d.]+", tail)]:
            return max(versions, key=lambda tail: [int(part) for part in tail.split(".") if part])
    return ""


def _jetpack(root: Root, l4t: str) -> str:
    if not l4t:
        return ""
    package = re.search(
        r"^Package: nvidia-jetpack\n(?:.+\n)*?Version: ([\d.]+)", root.text("var/lib/dpkg/status"), re.MULTILINE
    )
    if package:
        return package[1]
    return str(JETPACKS.get(int(l4t.split(".")[0]), ""))


def _built_for(onnxruntime: str) -> str:
    """Major CUDA version of the onnxruntime-gpu wheels on the package index; NVIDIA's own carry no hint."""
    parts = onnxruntime.split(".")
    if len(parts) < 2 or not (parts[0] + parts[1]).isdigit():
        return ""
    return "13" if (int(parts[0]), int(parts[1])) >= (1, 27) else "12"
