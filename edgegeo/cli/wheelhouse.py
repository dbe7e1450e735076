"""edgegeo wheelhouse: everything an install without a network needs."""

import platform
from pathlib import Path
from typing import Annotated

from edgegeo.cli.flags import JsonFlag, flag
from edgegeo.cli.output import emit_json, megabytes, progress_bar, say
from edgegeo.errors import InputError

OutputFlag = Annotated[Path, flag("--output", "-o", verb="wheelhouse", help="Folder to write.")]
PlatformFlag = Annotated[
    str | None,
    flag("--platform", verb="wheelhouse", help="aarch64 (Jetson) or x86_64.", show_default="this machine's"),
]
PythonFlag = Annotated[
    str, flag("--python", verb="wheelhouse", help="Its Python: 3.10 (JetPack 6) to 3.13; JetPack 7 has 3.12.")
]
ExtrasFlag = Annotated[str, flag("--extras", verb="wheelhouse", help="Extras of edgegeo, with commas.")]
GlibcFlag = Annotated[
    str, flag("--glibc", verb="wheelhouse", help="Its glibc: 2.35 is Ubuntu 22.04, 2.39 is Ubuntu 24.04.")
]
PinsFlag = Annotated[
    Path | None,
    flag("--constraint", "-c", verb="wheelhouse", help="Versions to take.", show_default="the tested ones, if at hand"),
]
LinksFlag = Annotated[
    list[Path] | None,
    flag("--find-links", verb="wheelhouse", help="Folder of further wheels, such as NVIDIA's; may be repeated."),
]
ForceFlag = Annotated[bool, flag("--force", verb="wheelhouse", help="Replace the folder if it exists.")]


def command(
    output: OutputFlag = Path("wheelhouse"),
    machine: PlatformFlag = None,
    python: PythonFlag = "3.10",
    extras: ExtrasFlag = "cpu,serve",
    glibc: GlibcFlag = "2.35",
    constraint: PinsFlag = None,
    find_links: LinksFlag = None,
    force: ForceFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Download all wheels of an offline install, with hashes and install.sh, and check that they are enough."""
    from edgegeo.field.wheelhouse import Target, make_wheelhouse, usual_pins

    major, _, minor = glibc.partition(".")
    if major != "2" or not minor.isdigit():
        raise InputError(f"--glibc takes a version such as 2.35, not {glibc!r:.20}")
    target = Target(machine or platform.machine(), python, int(minor))
    pins = constraint or usual_pins(python)
    words = tuple(dict.fromkeys(word.strip() for word in extras.split(",") if word.strip()))
    with progress_bar() as progress:
        made = make_wheelhouse(output, target, words, pins, find_links or (), force, progress)
    if as_json:
        emit_json({"wheelhouse": made, "bytes": made.bytes})
        return
    for wheel in made.wheels:
        say(f"{megabytes(wheel.bytes):>9}  {wheel.file}")
    checked = "installed in a fresh environment here" if made.installed else "resolved without a network"
    say(f"wrote {made.path}: {len(made.wheels)} wheels, {megabytes(made.bytes)}, {checked}; copy it and run install.sh")
