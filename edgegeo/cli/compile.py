"""edgegeo compile: TensorRT engines of a bundle, built and checked on the machine that will run them."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from edgegeo.cli.flags import JsonFlag, flag
from edgegeo.cli.output import emit_json, megabytes, note, progress_bar, say, table
from edgegeo.errors import BundleError

if TYPE_CHECKING:
    from edgegeo.runtime.engines.compiling import CompileReport

ProfileFlag = Annotated[
    str | None,
    flag("--profile", verb="compile",
         help="Calls to compile for: orin-nano-8gb, agx-orin-64gb, thor, or a TOML file like runtime/engines/*.toml."),
]  # fmt: skip
BatchFlag = Annotated[
    int | None,
    flag("--batch", verb="compile", help="Most texts, pictures or prompts at once; larger batches are split.",
         show_default="the profile's, else 16"),
]  # fmt: skip
LengthFlag = Annotated[
    int | None,
    flag("--length", verb="compile", help="Most positions of a prompt and its answer.",
         show_default="the profile's, else the bundle's longest job"),
]  # fmt: skip
WorkspaceFlag = Annotated[
    int | None,
    flag(
        "--workspace-mb",
        verb="compile",
        help="Most scratch memory of a kernel.",
        min=1,
        show_default="the profile's, else no limit",
    ),
]
LevelFlag = Annotated[
    int | None,
    flag("--level", verb="compile", help="Effort of the search for kernels.", min=0, max=5,
         show_default="the profile's, else TensorRT's own"),
]  # fmt: skip
LibraryFlag = Annotated[
    str, flag("--library", verb="compile", help="tensorrt, tensorrt-rtx, or auto: the first that is installed.")
]
NoRunFlag = Annotated[
    bool, flag("--no-run", verb="compile", help="Only build (TensorRT-RTX, no GPU needed); nothing is checked.")
]
RebuildFlag = Annotated[bool, flag("--rebuild", verb="compile", help="Build engines that are there already.")]
ForceFlag = Annotated[bool, flag("--force", verb="compile", help="Build although memory will hardly suffice.")]


def command(
    bundle: Annotated[
        str, typer.Argument(help="Bundle folder or name, exported for TensorRT.", envvar="EDGEGEO_BUNDLE")
    ],
    profile: ProfileFlag = None,
    batch: BatchFlag = None,
    length: LengthFlag = None,
    workspace_mb: WorkspaceFlag = None,
    level: LevelFlag = None,
    library: LibraryFlag = "auto",
    no_run: NoRunFlag = False,
    rebuild: RebuildFlag = False,
    force: ForceFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Compile a bundle's graphs to TensorRT engines, load them, and run the bundle's golden inputs through them."""
    from edgegeo.bundle import open_bundle
    from edgegeo.field.finding import Root
    from edgegeo.field.hardware import read_memory
    from edgegeo.home import find_bundle
    from edgegeo.runtime.engines.compiling import Request, compile_bundle
    from edgegeo.runtime.engines.profile import EngineProfile, load_profile
    from edgegeo.schema import to_plain

    wanted = load_profile(profile) if profile is not None else EngineProfile()
    given = {"workspace_mb": workspace_mb, "level": level}
    builder = replace(wanted.builder, **{name: value for name, value in given.items() if value is not None})
    request = Request(wanted.calls.at_most(batch, length), builder, library, not no_run, rebuild, force)
    place = find_bundle(bundle)
    if not os.path.lexists(place):
        raise BundleError(f"no bundle at {place}; make one where edgegeo[export] is installed, with: edgegeo export "
                          f"--int8 --target tensorrt -o {place.name}, and copy it here")  # fmt: skip
    opened = open_bundle(place)
    with progress_bar() as progress:
        report = compile_bundle(opened, request, read_memory(Root()).available, progress=progress)
    emit_json(to_plain(report) | {"executed": report.executed}) if as_json else _print(report)


def _print(report: "CompileReport") -> None:
    where = f" on {report.chip}" if report.chip else ""
    say(f"{report.bundle}, {report.library}{where}", "")
    for one in report.engines:  # not of those that are new here
        if one.why.startswith("the engine"):
            note(f"{one.component}: {one.why}")
    rows = [
        (one.component, one.precision, f"{one.weights_mb:,.1f} MB", f"{one.mb:,.1f} MB",
         f"{one.seconds:.1f} s" if one.why else "there already")
        for one in report.engines
    ]  # fmt: skip
    table(("component", "stored as", "graph", "engine", "build"), rows)
    if report.checks:
        say("")
        checks = [(one.name, f"{one.worst:.5g}", f"{one.limit:g}", one.note) for one in report.checks]
        table(("golden output", "worst", "limit", "what"), checks)
    total = sum(one.mb for one in report.engines) * 2**20
    kept = f"{len(report.engines)} engines, {megabytes(int(total))}, in {report.folder}"
    removed = f"; {report.removed} stale ones removed" if report.removed else ""
    if report.executed:
        say("", f"{kept}: loaded, and every golden output repeated{removed}. Use them with --provider tensorrt")
    else:
        say("", f"{kept}: built, but not executed and not checked{removed}. On the device, run edgegeo compile again: "
            "it loads and checks them")  # fmt: skip
