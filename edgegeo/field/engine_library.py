"""TensorRT's Python module: whether it loads, fits the library beside it, and is one that edgegeo compiles with."""

import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec

from edgegeo.errors import DeviceError
from edgegeo.field.finding import OK, WARN, Finding, Root
from edgegeo.field.jetson import Gpu
from edgegeo.runtime.engines.library import MODERN, MODULES, NAMES, OLDEST, REMEDIES, find_library

NEWEST = {"tensorrt": 11, "tensorrt-rtx": 1}
"""The last major release whose Python API edgegeo was written against."""
_SYSTEM = "usr/lib/python3*/dist-packages/tensorrt/__init__.py"


def examine_tensorrt(gpu: Gpu, root: Root) -> Iterator[Finding]:
    """One finding for each module that is installed, or one for none; `--provider tensorrt` takes the first of them."""
    kinds = [kind for kind, module in MODULES.items() if find_spec(module) is not None]
    for kind in kinds:
        yield _examine_module(kind, gpu)
    if not kinds:
        yield _absent(gpu, root)


def _examine_module(kind: str, gpu: Gpu) -> Finding:
    try:
        found = find_library(kind)
    except DeviceError as error:
        said, _, remedy = str(error).partition("; ")
        return Finding("tensorrt", WARN, said, remedy)
    said, beside = f"{found.name}, Python module", gpu.libraries.get("TensorRT", "")
    if kind == "tensorrt" and beside and not _agree(found.version, beside):
        remedy = f"install the Python module of the library: on a Jetson python3-libnvinfer, else tensorrt=={beside}"
        return Finding("tensorrt", WARN, f"{said}; the library found is {beside}", remedy)
    numbers = _numbers(found.version)
    if numbers[0] > NEWEST[kind]:
        known = f"edgegeo knows {_dotted(OLDEST[kind])} to {NEWEST[kind]}"
        remedy = f"{known}; install one of them, or check with: edgegeo verify --provider tensorrt"
        return Finding("tensorrt", WARN, said, remedy)
    if numbers[:2] < MODERN[kind]:
        said += f"; --target tensorrt only, tensorrt-modern needs {_dotted(MODERN[kind])}"
    return Finding("tensorrt", OK, said)


def _absent(gpu: Gpu, root: Root) -> Finding:
    """No module in this environment: of no consequence without the library, a thing to mend beside it."""
    library = gpu.libraries.get("TensorRT", "")
    if not library:
        return Finding("tensorrt", OK, "not installed", f"if wanted: {REMEDIES['tensorrt']}")
    said = f"library {library}, but no Python module in this environment"
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for file in root.listed(_SYSTEM):
        named = re.search(r"python(3\.\d+)/", file)
        other = f" for Python {named[1]}, this is {own}" if named and named[1] != own else ""
        python = f"python{named[1]}" if named else "/usr/bin/python3"
        remedy = f"the system has it{other}: make the environment with {python} -m venv --system-site-packages"
        return Finding("tensorrt", WARN, said, remedy)
    if gpu.l4t:
        return Finding("tensorrt", WARN, said, "sudo apt install python3-libnvinfer")
    return Finding("tensorrt", WARN, said, f"install the wheel tensorrt=={library}, or {NAMES['tensorrt-rtx']}: "
                   f"{REMEDIES['tensorrt-rtx']}")  # fmt: skip


def _agree(version: str, other: str) -> bool:
    """Whether two versions are the same as far as both are told, up to the third number."""
    pairs = zip(_numbers(version)[:3], _numbers(other)[:3], strict=False)
    return all(one == two for one, two in pairs)


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else (0,)


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
