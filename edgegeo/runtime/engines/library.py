"""TensorRT or TensorRT-RTX, whichever is installed: one Python API, of which only what 10.3 to 11 share is used."""

import importlib
from dataclasses import dataclass, field
from typing import Any

from edgegeo.errors import DeviceError, one_line

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
NAMES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
OLDEST = {"tensorrt": (10, 3), "tensorrt-rtx": (1, 2)}
DIALECTS = ("trt", "trt-modern")
"""Of the graphs that are compiled."""
MODERN = {"tensorrt": (10, 15), "tensorrt-rtx": (1, 7)}
"""The oldest that has the operators of the trt-modern dialect."""
REMEDIES = {
    "tensorrt": "on a Jetson it comes with JetPack (apt install python3-libnvinfer; a virtual environment needs "
    "--system-site-packages), elsewhere from NVIDIA; or use TensorRT-RTX: pip install 'edgegeo[rtx]'",
    "tensorrt-rtx": "pip install 'edgegeo[rtx]'",
}
KEPT = 4
"""Errors of the library that a message of ours quotes."""


@dataclass(frozen=True)
class Library:
    """An imported TensorRT."""

    kind: str
    """"tensorrt" or "tensorrt-rtx"."""
    version: str
    """In full, e.g. "10.3.0.30": plans of one version are refused by every other."""
    api: Any
    """The module."""
    logger: Any
    errors: list[str] = field(default_factory=list, compare=False)
    """What the library logged as errors since `take_errors`."""

    @property
    def name(self) -> str:
        """For people, with the version."""
        return f"{NAMES[self.kind]} {self.version}"

    @property
    def portable(self) -> bool:
        """Whether plans are built without a GPU and fit every supported one, which finishes them: TensorRT-RTX."""
        return self.kind == "tensorrt-rtx"

    def take_errors(self) -> str:
        """The errors logged since the last call, in one line; empty where there were none."""
        said = "; ".join(self.errors[-KEPT:])
        self.errors.clear()
        return said[:400]


def require_dialect(library: Library, dialect: str) -> None:
    """DeviceError for a TensorRT that lacks operators of a bundle's graphs."""
    oldest = MODERN[library.kind]
    if dialect == "trt-modern" and _numbers(library.version) < oldest:
        raise DeviceError(
            f"{library.name} lacks operators that this bundle was exported with: they need {_dotted(oldest)} or newer "
            "(JetPack 7.2 has TensorRT 10.16); export it with --target tensorrt"
        )


def find_library(kind: str = "auto") -> Library:
    """Import "tensorrt" or "tensorrt-rtx"; "auto" takes the first that is there. DeviceError with the remedy."""
    if kind not in (*MODULES, "auto"):
        raise DeviceError(f"unknown library '{kind}'; use {', '.join(MODULES)} or auto")
    faults = []
    for one in MODULES if kind == "auto" else (kind,):
        try:
            return _open(one, importlib.import_module(MODULES[one]))
        except ImportError as error:
            faults.append(one_line(error) if (error.name or "") != MODULES[one] else "")
        except (OSError, RuntimeError) as error:  # a stub without its libraries
            faults.append(one_line(error))
    wanted = "TensorRT" if kind == "auto" else NAMES[kind]
    said = "; ".join(fault for fault in faults if fault)
    found = f"{wanted} does not load ({said})" if said else f"{wanted} is not installed"
    raise DeviceError(f"{found}; {REMEDIES['tensorrt' if kind == 'auto' else kind]}")


def _open(kind: str, api: Any) -> Library:
    version = str(api.__version__)
    if _numbers(version) < OLDEST[kind]:
        oldest = _dotted(OLDEST[kind])
        raise DeviceError(f"{NAMES[kind]} {version} is too old; install {oldest} or newer (JetPack 6.1 has 10.3)")
    errors: list[str] = []
    return Library(kind, version, api, _logger(api, errors), errors)


def _logger(api: Any, errors: list[str]) -> Any:
    """A logger that keeps errors and drops the rest: what matters goes into the message of an exception."""

    class Recorder(api.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            api.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (api.ILogger.Severity.ERROR, api.ILogger.Severity.INTERNAL_ERROR):
                errors.append(" ".join(message.split()))

    return Recorder()


def _numbers(version: str) -> tuple[int, ...]:
    """Major and minor."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
