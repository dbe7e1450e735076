"""edgegeo's own wheel: built from the source tree, or put together again from the installed package."""

import base64
import csv
import hashlib
import io
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import edgegeo
from edgegeo.errors import DeviceError

_NOT_CARRIED = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
"""Files of dist-info that installing writes."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


def source_tree() -> Path | None:
    """The folder with pyproject.toml that this package is imported from; None where it was installed as a wheel."""
    root = Path(edgegeo.__file__).resolve().parents[1]
    return root if (root / "pyproject.toml").is_file() and (root / "README.md").is_file() else None


def make_own_wheel(folder: Path) -> Path:
    """Write edgegeo's wheel into `folder`; DeviceError where it can't be built."""
    root = source_tree()
    if root is None:
        try:
            return pack_installed(distribution("edgegeo"), folder)
        except PackageNotFoundError:
            raise DeviceError("edgegeo is neither installed nor in its source tree; install it with pip") from None
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(folder), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    made = sorted(folder.glob("edgegeo-*.whl"))
    if done.returncode or not made:
        reason = (done.stderr.strip().splitlines() or ["no wheel was written"])[-1]
        raise DeviceError(f"edgegeo's own wheel can't be built ({reason[:200]}); check pip and the network")
    return made[-1]


def pack_installed(found: Distribution, folder: Path) -> Path:
    """The wheel that a distribution was installed from, its files byte for byte; DeviceError where files are missing.

    Source: the binary distribution format (wheel 1.0) of the Python Packaging User Guide.
    """
    if found.files is None:
        raise DeviceError(f"{found.metadata['Name']} has no RECORD; install it again with pip")
    home = next(file.parts[0] for file in found.files if file.parts[0].endswith(".dist-info"))
    target = folder / f"{home.removesuffix('.dist-info')}-{_tag(found)}.whl"
    lines: list[tuple[str, str, str]] = []
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as wheel:
        for file in sorted(found.files):
            # Scripts lie outside, and are made again from entry_points.txt.
            if ".." in file.parts or "__pycache__" in file.parts:
                continue
            if file.parts[0] == home and file.name in _NOT_CARRIED:
                continue
            try:
                content = Path(str(found.locate_file(file))).read_bytes()
            except OSError:
                raise DeviceError(f"the installed edgegeo lacks {file}; install it again with pip") from None
            lines.append(_add(wheel, file.as_posix(), content))
        lines.append((f"{home}/RECORD", "", ""))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        _add(wheel, f"{home}/RECORD", text.getvalue().encode())
    return target


def _tag(found: Distribution) -> str:
    for line in (found.read_text("WHEEL") or "").splitlines():
        if line.startswith("Tag:"):
            return line.partition(":")[2].strip()
    return "py3-none-any"


def _add(wheel: zipfile.ZipFile, name: str, content: bytes) -> tuple[str, str, str]:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = 0o644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    wheel.writestr(entry, content)
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return name, f"sha256={digest}", str(len(content))
