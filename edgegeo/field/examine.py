"""The whole examination behind `edgegeo doctor`; nothing is changed by it."""

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from edgegeo.field.engine_library import examine_tensorrt
from edgegeo.field.finding import Finding, Root
from edgegeo.field.hardware import examine_cpu, examine_memory, examine_speed, examine_threads, read_memory
from edgegeo.field.holdings import examine_holdings, examine_home
from edgegeo.field.installation import (
    examine_extras,
    examine_onnxruntime,
    examine_packages,
    examine_python,
    installed,
    owners,
    start_providers,
)
from edgegeo.field.jetson import examine_gpu, find_gpu
from edgegeo.field.surroundings import examine_clock, examine_files, examine_port
from edgegeo.home import data_home
from edgegeo.measure import machine
from edgegeo.runtime.sessions import default_threads


def examine(root: Root | None = None, full: bool = False) -> Iterator[Finding]:
    """Look at everything once; root: where the kernel's files stand, full: hash large bundles and galleries too."""
    place = root or Root()
    facts = machine()
    yield Finding("machine", "ok", f"{platform.node()}, {facts['system']}, {facts['machine']}")
    yield examine_cpu(place, str(facts["machine"]), int(facts["cores"]))
    yield examine_threads(default_threads())
    yield examine_memory(read_memory(place))
    yield from examine_speed(place)
    yield from _software(place)
    yield from examine_extras()
    home = data_home()
    yield examine_home(home)
    yield from examine_holdings(home, full)
    yield examine_port(os.environ.get("EDGEGEO_HOST") or "127.0.0.1", _port())
    yield examine_clock()
    yield from examine_files()


def _software(root: Root) -> Iterator[Finding]:
    yield examine_python()
    found, providers = owners(), start_providers()
    yield examine_packages(installed())
    yield examine_onnxruntime(found, providers)
    gpu = find_gpu(root, _library_folders())
    wheel = next((one.version for one in found if one.name.lower().startswith("onnxruntime-gpu")), "")
    yield from examine_gpu(gpu, wheel, providers.get("CUDA") == "")
    yield from examine_tensorrt(gpu, root)


def _library_folders() -> list[Path]:
    """Where libraries lie that wheels brought, and where the loader was told to look."""
    named = [Path(word) for word in os.environ.get("LD_LIBRARY_PATH", "").split(":") if word]
    packages = [Path(word) for word in sys.path if word.endswith("site-packages")]
    wheels = [lib for folder in packages for lib in sorted((folder / "nvidia").glob("*/lib"))]
    return [*named, *wheels, *(folder / "tensorrt_libs" for folder in packages)]


def _port() -> int:
    text = os.environ.get("EDGEGEO_PORT", "")
    return int(text) if text.isdigit() and int(text) < 65536 else 8080
