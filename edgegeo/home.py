"""Where edgegeo keeps the bundles and galleries that were given no other place."""

import os
from pathlib import Path

from edgegeo.errors import InputError

DEFAULT_MODEL = "pocket"
DEFAULT_PRECISION = "int8"


def data_home() -> Path:
    """$EDGEGEO_HOME, else $XDG_DATA_HOME/edgegeo, else ~/.local/share/edgegeo. Nothing is created here."""
    if named := os.environ.get("EDGEGEO_HOME"):
        return Path(named).expanduser()
    if xdg := os.environ.get("XDG_DATA_HOME"):
        return Path(xdg).expanduser() / "edgegeo"
    try:
        return Path.home() / ".local" / "share" / "edgegeo"
    except RuntimeError:
        raise InputError("this user has no home folder; set EDGEGEO_HOME to a folder that edgegeo may use") from None


def default_bundle(precision: str = DEFAULT_PRECISION, model: str = DEFAULT_MODEL) -> Path:
    """Where `edgegeo export` writes a bundle that was given no -o."""
    return data_home() / "bundles" / f"{model}-{precision}"


def default_gallery(bundle: str | Path) -> Path:
    """Where `edgegeo index build` writes the planet gallery of a bundle."""
    return data_home() / "galleries" / f"planet-{Path(bundle).name}"


def built_gallery(bundle: str | Path) -> Path | None:
    """The planet gallery of a bundle, None where none was built, or its first build is not finished."""
    usual = default_gallery(bundle)
    return usual if (usual / "gallery.json").is_file() else None


def find_bundle(named: str | Path | None) -> Path:
    """The bundle folder a person means: a path, the bare name of one under the data home, or None for the default.

    Nothing is checked here: `open_bundle` says what is wrong with the place and how to mend it.
    """
    if named is None:
        return default_bundle()
    path = Path(named).expanduser()
    at_home = data_home() / "bundles" / path
    if len(path.parts) == 1 and not os.path.exists(path) and os.path.isdir(at_home):
        return at_home
    return path
