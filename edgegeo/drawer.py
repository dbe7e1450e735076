"""TOML files that a person edits: those of a drawer by name, any by its path.

A source tree has the drawer itself; the wheel has a copy inside the package.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from edgegeo.errors import InputError
from edgegeo.schema import SchemaFault, parse

T = TypeVar("T")


def toml_files(drawer: str, packaged: str) -> dict[str, Path]:
    """Name -> file of every TOML file in a drawer; packaged: where the wheel has it, from the package's folder."""
    package = Path(__file__).resolve().parent
    folders = [package.parent / drawer, package / packaged]
    return {file.stem: file for folder in folders for file in sorted(folder.glob("*.toml"))}


def read(cls: type[T], file: Path, what: str) -> T:
    """The dataclass `cls` from a TOML file; InputError names the file and every fault in it. what: of the message."""
    try:
        return parse(cls, _toml(file), file.name)
    except OSError as error:
        raise InputError(f"{what} {file} can't be read ({error.strerror})") from None
    except (ValueError, SchemaFault) as fault:
        raise InputError(f"{what} {file}: {fault}") from None


def _toml(file: Path) -> Any:
    text = file.read_text(encoding="utf-8")
    try:
        # Python 3.10 has no tomllib; tomli is the same code.
        reader = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    except ModuleNotFoundError:
        raise InputError("profiles are TOML, which Python 3.10 reads with tomli only; pip install tomli") from None
    return reader.loads(text)
