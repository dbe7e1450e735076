"""Python and its packages: what is installed, what is missing, and two onnxruntimes in one folder."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from importlib.util import find_spec
from pathlib import Path

from edgegeo.errors import DeviceError, one_line
from edgegeo.field.finding import FAIL, OK, WARN, Finding

RUNTIME = ("numpy", "pillow", "tokenizers")
OLDEST, BUILD = (3, 10), (3, 11)
"""Oldest Python of the runtime, and of training and export."""
PROVIDERS = {"CPU": "CPUExecutionProvider", "CUDA": "CUDAExecutionProvider", "TensorRT": "TensorrtExecutionProvider"}
IDENTITY = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a080801"
    "12040a02080142040a00100d"
)
"""A graph that copies one number: the least that shows whether a provider starts."""
EXTRAS = {
    "server": ("serve", ("fastapi", "uvicorn", "prometheus_client", "python_multipart")),
    "training": ("train", ("torch", "transformers", "peft", "safetensors")),
    "export": ("export", ("onnx", "onnxscript", "onnx_ir", "torch", "transformers")),
}
"""What is looked for: the extra that brings it, and its modules."""
_FOLDER = "onnxruntime"


@dataclass(frozen=True)
class Owner:
    """A distribution whose files lie in the folder `onnxruntime`."""

    name: str
    version: str
    missing: int
    """Files that it wrote and that are gone."""


def examine_python(version: tuple[int, int] | None = None) -> Finding:
    """Whether this Python runs edgegeo, and whether it builds too."""
    found = version or (sys.version_info[0], sys.version_info[1])
    said = ".".join(map(str, found if version else sys.version_info[:3]))
    if found < OLDEST:
        return Finding("python", FAIL, said, "edgegeo needs Python 3.10 or newer")
    return Finding("python", OK, said if found >= BUILD else f"{said}: runtime only, training and export need 3.11")


def examine_packages(installed: dict[str, str]) -> Finding:
    """The runtime's packages; installed: distribution in lower case -> version."""
    missing = [name for name in RUNTIME if name not in installed]
    listed = ", ".join(f"{name} {installed[name]}" for name in RUNTIME if name in installed)
    if missing:
        remedy = "pip install --force-reinstall edgegeo"
        return Finding("runtime", FAIL, f"without {', '.join(missing)}", remedy)
    return Finding("runtime", OK, listed)


def owners(places: Sequence[Path] | None = None) -> list[Owner]:
    """Distributions that own files of the folder `onnxruntime`, by name; places: site-packages, default sys.path."""
    found = distributions() if places is None else distributions(path=[str(place) for place in places])
    out: dict[str, Owner] = {}
    for one in found:
        name = str(one.metadata["Name"] or "")
        if not name.lower().startswith("onnxruntime"):
            continue
        files = [file for file in one.files or () if file.parts[:1] == (_FOLDER,)]
        if files and name not in out:
            # The .py files are the same in both wheels; what differs, and what breaks, are the libraries.
            gone = sum(not Path(str(one.locate_file(file))).exists() for file in files if ".so" in file.name)
            out[name] = Owner(name, one.version, gone)
    return [out[name] for name in sorted(out)]


def examine_onnxruntime(found: Sequence[Owner], providers: dict[str, str]) -> Finding:
    """One onnxruntime, whole, and with a provider that starts; providers: as `start_providers` gives them."""
    listed = ", ".join(f"{one.name} {one.version}" for one in found)
    if len(found) > 1:
        names = " ".join(one.name for one in found)
        keep = next((one.name for one in found if one.name != "onnxruntime"), found[0].name)
        remedy = f"both own one folder and overwrite each other: pip uninstall -y {names} && pip install {keep}"
        return Finding("onnxruntime", FAIL, listed, remedy)
    if not found and find_spec(_FOLDER) is None:
        return Finding("onnxruntime", FAIL, "not installed", "pip install 'edgegeo[cpu]' (or 'edgegeo[gpu]')")
    if found and found[0].missing:
        remedy = f"another onnxruntime was removed over it: pip install --force-reinstall --no-deps {found[0].name}"
        return Finding("onnxruntime", FAIL, f"{listed}, {found[0].missing} libraries missing", remedy)
    started = [name for name, fault in providers.items() if not fault]
    failed = [f"{name} listed, but does not start" for name, fault in providers.items() if fault]
    said = "; ".join([f"{listed or 'of unknown origin'}, starts on {', '.join(started) or 'nothing'}", *failed])
    if "CPU" not in started:
        reason = providers.get("CPU") or "it can't be imported"
        remedy = f"{reason}; pip install --force-reinstall {found[0].name if found else _FOLDER}"
        return Finding("onnxruntime", FAIL, said, remedy)
    if failed:
        remedy = "the driver or CUDA libraries don't fit it; see the line gpu, or use --provider cpu"
        return Finding("onnxruntime", WARN, said, remedy)
    return Finding("onnxruntime", OK, said)


def start_providers() -> dict[str, str]:
    """Each provider of this onnxruntime that edgegeo knows -> why it does not start, "" where it does.

    A provider that is listed may still lack its libraries, and then runs on the CPU in silence: so a session is opened.
    """
    try:
        import onnxruntime
    except Exception as error:  # a half-overwritten folder raises whatever its halves raise
        return {"CPU": f"it can't be imported ({one_line(error)})"}
    try:
        from edgegeo.runtime.sessions import choose_provider

        choose_provider("cpu")
    except DeviceError as error:
        return {"CPU": str(error)}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    onnxruntime.set_default_logger_severity(4)
    out = {}
    available = onnxruntime.get_available_providers()
    for name, provider in PROVIDERS.items():
        if provider not in available:
            continue
        try:
            used = onnxruntime.InferenceSession(IDENTITY, options, providers=[provider]).get_providers()
            out[name] = "" if used[0] == provider else f"onnxruntime fell back to {used[0]}"
        except Exception as error:  # onnxruntime raises its own classes from a private module
            out[name] = one_line(error)
    return out


def examine_extras() -> Iterator[Finding]:
    """What of the server and of the build side is there; a field machine needs no build side."""
    for topic, (extra, modules) in EXTRAS.items():
        missing = [name for name in modules if find_spec(name) is None]
        if not missing:
            yield Finding(topic, OK, "installed")
        else:
            level = WARN if topic == "server" else OK
            yield Finding(topic, level, f"without {', '.join(missing)}", f"if wanted: pip install 'edgegeo[{extra}]'")


def installed() -> dict[str, str]:
    """Distribution in lower case -> version, of everything on sys.path."""
    return {name.lower(): one.version for one in distributions() if (name := _name(one))}


def _name(one: Distribution) -> str:
    return str(one.metadata["Name"] or "")
