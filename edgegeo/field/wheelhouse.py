"""All wheels of an offline install in one folder, for this machine or another, checked before it is handed over.

DIR/
  *.whl               edgegeo and everything it needs
  requirements.txt    every package with version and sha256
  install.sh          makes a virtual environment of them, no network needed
"""

import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgegeo.bundle import sha256_of
from edgegeo.errors import DeviceError, InputError
from edgegeo.field.own_wheel import make_own_wheel, source_tree
from edgegeo.progress import Progress, silent

PLATFORMS = ("aarch64", "x86_64")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
EXTRAS = (
    "cpu", "gpu", "serve", "mavlink", "index", "geotiff", "postgres", "ray", "train", "qlora", "export", "rtx", "bench",
    "all",
)  # fmt: skip
OLDEST_GLIBC = 17
"""glibc 2.17 is manylinux2014; older ones have no Python 3.10 to speak of."""
_NO_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeoutError|ReadTimeoutError|ProxyError|Max retries exceeded|"
    r"Connection (refused|reset|aborted)|Temporary failure in name resolution|Network is unreachable"
)
_NO_WHEEL = re.compile(r"(?:No matching distribution found for|satisfies the requirement) ([^\s;(]+)")
_INSTALL = """#!/bin/sh
# Installs edgegeo without a network:  sh install.sh [FOLDER OF THE VIRTUAL ENVIRONMENT, by default /opt/edgegeo]
# For Python {python} on {platform}; PYTHON names another interpreter of that version.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${{1:-/opt/edgegeo}}
python=${{PYTHON:-python{python}}}
[ "$(uname -m)" = {platform} ] || {{ echo "error: these wheels are for {platform}, this is $(uname -m)" >&2; exit 2; }}
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != ({major}, {minor}))' || {{
  echo "error: these wheels are for Python {python}; name one with PYTHON=/path/to/python{python}" >&2; exit 2; }}
"$python" -m venv "$venv"
"$venv/bin/python" -m pip install --no-index --find-links "$here" --require-hashes -r "$here/requirements.txt"
"$venv/bin/edgegeo" --version
"""


@dataclass(frozen=True)
class Target:
    """The machine that the wheels are for."""

    platform: str
    python: str
    glibc: int = 35
    """Minor version of its glibc 2: 35 is Ubuntu 22.04 (JetPack 6), 39 is 24.04 (JetPack 7)."""

    def __post_init__(self) -> None:
        if self.platform not in PLATFORMS:
            raise InputError(f"unknown platform '{self.platform}'; wheels are gathered for {' and '.join(PLATFORMS)}")
        if self.python not in PYTHONS:
            raise InputError(f"Python '{self.python}' is none that edgegeo runs on; use one of {', '.join(PYTHONS)}")
        if not OLDEST_GLIBC <= self.glibc <= 60:
            raise InputError(f"glibc 2.{self.glibc} is unknown; `ldd --version` on that machine tells it, as in 2.35")

    @property
    def tags(self) -> list[str]:
        """Platform tags of wheels that run there, best first."""
        numbered = [f"manylinux_2_{minor}_{self.platform}" for minor in range(self.glibc, OLDEST_GLIBC - 1, -1)]
        return [*numbered, f"manylinux2014_{self.platform}", f"linux_{self.platform}"]

    @property
    def environment(self) -> dict[str, str]:
        """What conditions on requirements are judged by there (PEP 508)."""
        full = f"{self.python}.0"
        return {
            "implementation_name": "cpython", "implementation_version": full, "os_name": "posix",
            "platform_machine": self.platform, "platform_python_implementation": "CPython", "platform_release": "",
            "platform_system": "Linux", "platform_version": "", "python_full_version": full,
            "python_version": self.python, "sys_platform": "linux",
        }  # fmt: skip

    def interpreter(self) -> str | None:
        """A Python of that kind on this machine; None on another platform, or where there is none."""
        if platform.system() != "Linux" or platform.machine() != self.platform:
            return None
        if self.python == f"{sys.version_info[0]}.{sys.version_info[1]}":
            return sys.executable
        found = shutil.which(f"python{self.python}")
        # A version manager's stub answers to the name without being an interpreter.
        works = found and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0
        return found if works else None


@dataclass(frozen=True)
class Wheel:
    """One file of the set."""

    name: str
    version: str
    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Wheelhouse:
    """What was gathered and how it was checked."""

    path: Path
    target: Target
    extras: tuple[str, ...]
    wheels: tuple[Wheel, ...]
    pins: str
    """File of the versions that were asked for; "" where the newest were taken."""
    installed: bool
    """Whether the set was really installed in a fresh environment here; otherwise it was resolved only."""

    @property
    def bytes(self) -> int:
        """Size of all wheels."""
        return sum(wheel.bytes for wheel in self.wheels)


def make_wheelhouse(
    out: Path, target: Target, extras: Sequence[str] = ("cpu", "serve"), pins: Path | None = None,
    sources: Sequence[Path] = (), force: bool = False, progress: Progress = silent,
) -> Wheelhouse:  # fmt: skip
    """Gather, check and write a wheelhouse; what stood at `out` is replaced only by a whole one, and only if `force`.

    pins: a constraints file; sources: folders of wheels beside the package index, such as NVIDIA's onnxruntime-gpu.
    InputError for unknown extras and for packages without a wheel, DeviceError without a network.
    """
    unknown = [name for name in extras if name not in EXTRAS]
    if unknown:
        raise InputError(f"edgegeo has no extra '{unknown[0]}'; it has {', '.join(EXTRAS)}")
    _check_places(out, force, pins, sources)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.absolute().parent) as scratch:
        own, folder = Path(scratch) / "own", Path(scratch) / "wheels"
        own.mkdir()
        progress("building edgegeo's wheel", 0, 0)
        wheel = make_own_wheel(own)
        wheels = collect(wheel, extras, target, folder, pins, sources, progress)
        _write(folder, wheels, target, extras)
        progress("installing it here", 0, 0)
        installed = _installs(folder, target, Path(scratch) / "venv")
        folder.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)
    return Wheelhouse(out, target, tuple(extras), wheels, "" if pins is None else pins.name, installed)


def _check_places(out: Path, force: bool, pins: Path | None, sources: Sequence[Path]) -> None:
    """Before minutes of downloads: what is read is there, and what is replaced is a wheelhouse."""
    if out.exists() and not force:
        raise InputError(f"{out} exists already; name another folder with -o, or replace it with --force")
    if out.exists() and not (out / "install.sh").is_file():
        raise InputError(f"{out} is not a wheelhouse, so --force doesn't replace it; name another folder with -o")
    if pins is not None and not pins.is_file():
        raise InputError(f"no file of versions at {pins}; give --constraint one like constraints.txt, or leave it out")
    for source in sources:
        if not source.is_dir():
            raise InputError(f"no folder at {source}; give --find-links a folder of wheels")
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"can't write {out} ({error.strerror or error}); name another folder with -o") from None


def collect(
    wheel: Path, extras: Sequence[str], target: Target, folder: Path, pins: Path | None = None,
    sources: Sequence[Path] = (), progress: Progress = silent,
) -> tuple[Wheel, ...]:  # fmt: skip
    """Download into `folder` what `wheel` with its extras needs there, then resolve it again from the folder alone."""
    asked = f"{wheel}[{','.join(extras)}]" if extras else str(wheel)
    links = [word for source in sources for word in ("--find-links", str(source.absolute()))]
    limits = [] if pins is None else ["--constraint", str(pins)]
    # One retry at least: without any, pip does not say that it found no network.
    where = ["--dest", str(folder), "--retries", "1", "--timeout", "20"]
    progress("downloading", 0, 0)
    _pip(target, ["download", *where, *links, *limits, *_choice(target), asked])
    progress("resolving without a network", 0, 0)
    report = folder / "report.json"
    alone = ["--no-index", "--find-links", str(folder), "--dry-run", "--ignore-installed", "--report", str(report)]
    _pip(target, ["install", *alone, *_choice(target), asked.replace(str(wheel), str(folder / wheel.name))])
    resolved = json.loads(report.read_text(encoding="utf-8"))["install"]
    report.unlink()
    names = {str(one["metadata"]["name"]): str(one["metadata"]["version"]) for one in resolved}
    files = {Path(one["download_info"]["url"]).name: str(one["metadata"]["name"]) for one in resolved}
    found = sorted(folder.glob("*.whl"))
    if extra := {file.name for file in found} ^ set(files):
        raise DeviceError(f"the set does not resolve to itself ({', '.join(sorted(extra))}); delete it and try again")
    return tuple(Wheel(files[one.name], names[files[one.name]], one.name, one.stat().st_size, sha256_of(one))
                 for one in found)  # fmt: skip


def usual_pins(python: str) -> Path | None:
    """The versions that edgegeo was tested with under that Python; None outside a source tree."""
    root = source_tree()
    if root is None:
        return None
    return root / "runtime" / "jetpack6.txt" if python == "3.10" else root / "constraints.txt"


def _choice(target: Target) -> list[str]:
    tags = [word for tag in target.tags for word in ("--platform", tag)]
    return ["--only-binary", ":all:", "--implementation", "cp", "--python-version", target.python, *tags]


def _pip(target: Target, words: Sequence[str]) -> None:
    environment = json.dumps(target.environment)
    quiet = ["--disable-pip-version-check", "--no-input", "--quiet"]
    command = [sys.executable, "-m", "edgegeo.field.foreign_pip", environment, *words, *quiet]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    told = done.stderr
    if _NO_NETWORK.search(told):
        raise DeviceError("no package index answers; gather the wheels on a machine with a network, then copy them")
    if missing := _NO_WHEEL.search(told):
        advice = "name a folder that holds one with --find-links"
        if missing[1].startswith("onnxruntime-gpu") and target.platform == "aarch64":
            advice = "take NVIDIA's wheel for this JetPack, and name its folder with --find-links"
        raise InputError(f"there is no wheel of {missing[1]} for Python {target.python} on {target.platform}; {advice}")
    lines = [line for line in told.splitlines() if line.startswith("ERROR:")] or told.strip().splitlines()
    raise DeviceError(f"pip failed: {' '.join(lines)[:300] or 'without a word'}")


def _write(folder: Path, wheels: Sequence[Wheel], target: Target, extras: Sequence[str]) -> None:
    lines = [f"# Python {target.python}, Linux {target.platform}, glibc 2.{target.glibc} or newer"]
    for wheel in wheels:
        asked = f"[{','.join(extras)}]" if wheel.name == "edgegeo" and extras else ""
        lines.append(f"{wheel.name}{asked}=={wheel.version} --hash=sha256:{wheel.sha256}")
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    major, _, minor = target.python.partition(".")
    text = _INSTALL.format(python=target.python, platform=target.platform, major=major, minor=minor)
    (folder / "install.sh").write_text(text, encoding="utf-8")
    (folder / "install.sh").chmod(0o755)


def _installs(folder: Path, target: Target, venv: Path) -> bool:
    """Run install.sh itself where this machine can; False where it can't."""
    python = target.interpreter()
    if python is None:
        return False
    done = subprocess.run(
        ["sh", str(folder / "install.sh"), str(venv)], capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHON": python, "PIP_CONFIG_FILE": "/dev/null"},
    )  # fmt: skip
    if done.returncode:
        reason = " ".join((done.stderr.strip().splitlines() or ["without a word"])[-3:])
        raise DeviceError(f"the wheels don't install in a fresh environment here: {reason[:300]}")
    return True
