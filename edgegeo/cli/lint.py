"""edgegeo lint: would TensorRT take these graphs, and keep their weights packed?"""

from pathlib import Path
from typing import Annotated

import typer

from edgegeo.cli.flags import JsonFlag, flag
from edgegeo.cli.output import emit_json, say, table
from edgegeo.errors import InputError, VerificationError


def command(
    graphs: Annotated[
        str, typer.Argument(help="Bundle folder or name, or one .onnx file.", envvar="EDGEGEO_LINT_GRAPHS")
    ],
    profile: Annotated[
        str, flag("--profile", verb="lint", help="jetpack6 (TensorRT 10.3 on) or modern (10.15 on).")
    ] = "jetpack6",
    as_json: JsonFlag = False,
) -> None:
    """Check graphs against the rules of TensorRT, without TensorRT: every violation by rule and node."""
    from edgegeo.export.lint import lint_file

    files = _files(graphs)
    found = {file: lint_file(file, profile) for file in files}
    count = sum(map(len, found.values()))
    if as_json:
        emit_json({"profile": profile, "passed": not count, "files": {
            str(file): [vars(one) for one in violations] for file, violations in found.items()
        }})  # fmt: skip
    else:
        rows = [(file.name, one.rule, one.node, one.found, one.remedy) for file in files for one in found[file]]
        if rows:
            table(("graph", "rule", "node", "what", "do"), rows)
        say(f"{len(files)} {'graph' if len(files) == 1 else 'graphs'}, {count or 'no'} "
            f"{'violation' if count == 1 else 'violations'} of {profile}")  # fmt: skip
    if count:
        rules = ", ".join(dict.fromkeys(one.rule for violations in found.values() for one in violations))
        raise VerificationError(f"{graphs} breaks rules of {profile} ({rules}); export it with --target tensorrt")


def _files(named: str) -> list[Path]:
    from edgegeo.bundle import open_bundle
    from edgegeo.home import find_bundle

    place = Path(named).expanduser()
    if place.suffix == ".onnx":
        if not place.is_file():
            raise InputError(f"no file {place}; name an .onnx file or a bundle")
        return [place]
    bundle = open_bundle(find_bundle(named), check_hashes=False)
    return [bundle.component(name) for name in bundle.manifest.components]
