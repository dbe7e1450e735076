"""Every fact of the machine that a published number needs beside it."""

import hashlib
import os
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import edgegeo
from edgegeo.bench.energy import open_nvml
from edgegeo.measure import machine
from edgegeo.rails import listed, power_mode, read_number, read_text

PACKAGES = ("onnxruntime", "onnxruntime-gpu", "numpy", "pillow", "tokenizers")
FLAGS = (
    "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8",
    "amx_bf16", "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
"""Instructions that decide how fast a model runs."""
SAME = ("cpu", "cores", "machine", "memory_gb", "gpus")
"""Facts that make it another machine."""
_COMMAND_S = 10.0


def versions() -> dict[str, str]:
    """Versions of what does the work, without importing it; "code" stands for the measured sources themselves."""
    found = {"edgegeo": edgegeo.__version__, "code": _code()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def describe_machine(root: Path = Path("/")) -> dict[str, Any]:
    """Processor, memory, clocks, power mode, GPUs, container and commit; what is not known is left out.

    root: where /proc, /sys, /etc and /var are looked for.
    """
    frequency = "sys/devices/system/cpu/cpu0/cpufreq"
    told = {
        "flags": _flags(root),
        "memory_gb": _memory_gb(root),
        "governor": read_text(root / frequency / "scaling_governor"),
        "max_mhz": _mhz(root / frequency / "scaling_max_freq"),
        "turbo": _turbo(root),
        "virtual": "hypervisor" in _cpu_line(root, "flags"),
        "container": _container(root),
        "power_mode": vars(mode) if (mode := power_mode(root)) else None,
        "board": read_text(root / "proc/device-tree/model"),
        "gpus": _gpus(),
        "commit": _commit(),
    }
    return {**machine(), **{name: fact for name, fact in told.items() if fact not in (None, "", [], False)}}


def same_machine(one: dict[str, Any], two: dict[str, Any]) -> list[str]:
    """What differs between two machines in words; empty where it is one."""
    pairs = {name: (one.get(name), two.get(name)) for name in SAME}
    # Kernels of one machine round the memory they leave differently.
    sizes = [size for size in pairs["memory_gb"] if size]
    if len(sizes) == 2 and max(sizes) < 1.05 * min(sizes):
        del pairs["memory_gb"]
    return [f"{name.replace('_', ' ')}: {a} and {b}" for name, (a, b) in pairs.items() if a != b]


def temperature_c(root: Path = Path("/")) -> float | None:
    """The hottest thermal zone; None where there is none."""
    zones = [read_number(zone / "temp") for zone in listed(root / "sys/class/thermal", "thermal_zone*")]
    return max((degrees / 1e3 for degrees in zones if degrees is not None), default=None)


def load_average() -> float | None:
    """Processes that wanted a processor, mean of the last minute; None where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


@lru_cache(maxsize=1)
def _code() -> str:
    """Hash of the sources that are measured and that measure."""
    package = Path(edgegeo.__file__).parent
    digest = hashlib.sha256()
    timing = [package / "measure.py", *(package / "bench" / f"{name}.py" for name in ("jobs", "stages", "worker"))]
    for file in [*sorted((package / "runtime").rglob("*.py")), *timing]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _cpu_line(root: Path, *names: str) -> list[str]:
    try:
        for line in (root / "proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, rest = line.partition(":")
            if name.strip() in names:
                return rest.split()
    except OSError:
        pass
    return []


def _flags(root: Path) -> list[str]:
    found = _cpu_line(root, "flags", "Features")
    return [flag for flag in FLAGS if flag in found]


def _memory_gb(root: Path) -> float | None:
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                return round(int(line.split()[1]) / 2**20, 1)
    except OSError:
        pass
    return None


def _mhz(file: Path) -> int | None:
    found = read_number(file)
    return None if found is None else round(found / 1e3)


def _turbo(root: Path) -> str:
    off = read_text(root / "sys/devices/system/cpu/intel_pstate/no_turbo")
    on = read_text(root / "sys/devices/system/cpu/cpufreq/boost")
    return {"1": "off", "0": "on"}.get(off) or {"1": "on", "0": "off"}.get(on) or ""


def _container(root: Path) -> str:
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    groups = read_text(root / "proc/1/cgroup")
    return next((name for name in ("kubepods", "docker", "lxc", "containerd") if name in groups), "")


def _gpus() -> list[str]:
    library = open_nvml()
    if library is None:
        return []
    driver = library.nvmlSystemGetDriverVersion()
    devices = [library.nvmlDeviceGetHandleByIndex(index) for index in range(library.nvmlDeviceGetCount())]
    return [f"{library.nvmlDeviceGetName(device)}, driver {driver}" for device in devices]


def _commit() -> str:
    """Of the source tree that runs, with "+" where it was changed since; empty for an installed package."""
    tree = Path(edgegeo.__file__).parents[1]
    if not (tree / ".git").exists():
        return ""
    try:
        head = _git(tree, "rev-parse", "--short=10", "HEAD")
        return head + ("+" if _git(tree, "status", "--porcelain", "--untracked-files=no", "--", "edgegeo") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(tree: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=tree, capture_output=True, text=True, check=True, timeout=_COMMAND_S,
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
    )  # fmt: skip
    return done.stdout.strip()
