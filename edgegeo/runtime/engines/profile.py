"""Engine profiles: the calls that a device's engines are built for, and how they are built (runtime/engines/*.toml)."""

from dataclasses import dataclass, field
from pathlib import Path

from edgegeo.drawer import read, toml_files
from edgegeo.errors import InputError
from edgegeo.runtime.engines.building import Settings
from edgegeo.runtime.engines.shapes import Limits


@dataclass(frozen=True)
class EngineProfile:
    """A TOML file: two tables, of which either may be left out."""

    calls: Limits = field(default_factory=Limits)
    builder: Settings = field(default_factory=Settings)


def engine_profiles() -> dict[str, Path]:
    """Name -> file of every engine profile at hand."""
    return toml_files("runtime/engines", "runtime/engines/profiles")


def load_profile(named: str) -> EngineProfile:
    """The engine profile of a name or a TOML file; InputError for an unknown name, and for a file with faults."""
    file = Path(named).expanduser() if named.endswith(".toml") else engine_profiles().get(named)
    if file is None:
        known = ", ".join(engine_profiles())
        raise InputError(f"no engine profile '{named}'; known are {known}, or a TOML file like those")
    return read(EngineProfile, file, "engine profile")
