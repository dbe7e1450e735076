"""What a plan depends on: two that differ in any of it are two plans."""

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from edgegeo.bundle import Bundle
from edgegeo.runtime.engines.driver import Chip
from edgegeo.runtime.engines.library import Library
from edgegeo.runtime.engines.shapes import Profile
from edgegeo.schema import to_plain

PORTABLE = "portable"
"""Chip and system of plans that TensorRT-RTX finishes on the device."""
TEGRA_RELEASE = Path("/etc/nv_tegra_release")


@dataclass(frozen=True)
class EngineKey:
    """Everything that may make a plan useless, or wrong, when it changes."""

    graph: str
    """sha256 of the graph and of its weights."""
    library: str
    """TensorRT's name and full version."""
    chip: str
    """Name, compute capability and processors of the device."""
    system: str
    """Operating system, architecture and, on a Jetson, the L4T release."""
    profiles: str
    """Ranges of shapes, as JSON."""
    flags: str
    """Settings of the builder."""
    exporter: str
    """Version of the edgegeo that wrote the graph."""

    @property
    def digest(self) -> str:
        """Hex sha256 of the key."""
        return hashlib.sha256(json.dumps(to_plain(self), sort_keys=True).encode()).hexdigest()

    def differences(self, other: "EngineKey") -> tuple[str, ...]:
        """What differs, each in words: the field, what this key has, what the other has."""
        said = []
        for one in fields(self):
            mine, its = getattr(self, one.name), getattr(other, one.name)
            if mine != its:
                said.append(f"{WORDS[one.name]} ({_short(mine)}, now {_short(its)})")
        return tuple(said)

    def same_machine(self, other: "EngineKey") -> bool:
        """Whether a plan under this key can run where one under the other key can: shapes and flags are its own."""
        places = ("graph", "library", "chip", "system")
        return all(getattr(self, name) == getattr(other, name) for name in places)


WORDS = {
    "graph": "the graph", "library": "the library", "chip": "the chip", "system": "the system",
    "profiles": "the ranges of shapes", "flags": "the builder's settings", "exporter": "the exporter",
}  # fmt: skip


def graph_hash(bundle: Bundle, component: str) -> str:
    """sha256 over the recorded hashes of a component's graph and of the data file beside it."""
    file = bundle.manifest.components[component].file
    hashes = [entry.sha256 for name, entry in sorted(bundle.manifest.files.items()) if name in (file, f"{file}_data")]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def make_key(
    bundle: Bundle, component: str, library: Library, chip: Chip | None, profiles: Sequence[Profile], flags: str
) -> EngineKey:
    """The key of a component here; chip: None where plans are portable."""
    portable = library.portable or chip is None
    return EngineKey(
        graph=graph_hash(bundle, component), library=library.name, chip=PORTABLE if portable else str(chip),
        system=PORTABLE if portable else system(), profiles=json.dumps(to_plain(list(profiles)), sort_keys=True),
        flags=flags, exporter=bundle.manifest.tools.get("edgegeo", "unknown"),
    )  # fmt: skip


def system(release: Path = TEGRA_RELEASE) -> str:
    """Operating system and architecture, with the L4T release of a Jetson."""
    said = f"{platform.system()} {platform.machine()}"
    try:
        # "# R36 (release), REVISION: 4.0, GCID: ..."
        first = release.read_text(encoding="utf-8", errors="replace").splitlines()[0]
        major, _, rest = first.lstrip("# ").partition(" (release), REVISION: ")
        return f"{said}, L4T {major}.{rest.partition(',')[0]}"
    except (OSError, IndexError):
        return said


def _short(value: str) -> str:
    if len(value) == 64 and all(letter in "0123456789abcdef" for letter in value):
        return value[:8]
    return value if len(value) <= 80 else f"{value[:77]}..."
