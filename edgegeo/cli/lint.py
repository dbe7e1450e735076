"""edgegeo lint: would TensorRT take these graphs, and keep their weights packed?"""

import os
from pathlib import Path
from typing import Annotated

import typer

from edgegeo.cli.flags import JsonFlag, flag
from edgegeo.cli.output import emit_json, say, table
from edgegeo.errors import VerificationError

PORTABLE, MODERN = "tensorrt", "tensorrt-modern"


def command(
    graphs: Annotated[
        str, typer.Argument(help="Bundle folder or name, or one .onnx file.", envvar="EDGEGEO_LINT_GRAPHS")
    ],
    target: Annotated[
        str | None,
        flag(
            "--target",
            verb="lint",
            help="tensorrt (10.3 on, JetPack 6) or tensorrt-modern (10.15 on).",
            show_default="the bundle's own, else tensorrt",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check graphs against the rules of TensorRT, without TensorRT: every violation by rule and node."""
    from edgegeo.export.lint import lint_file, subset_of

    files, own = _files(graphs)
    against = target or own
    covers = subset_of(against).covers
    found = {file: lint_file(file, against) for file in files}
    count = sum(map(len, found.values()))
    if as_json:
        emit_json({"target": against, "passed": not count, "files": {
            str(file): [vars(one) for one in violations] for file, violations in found.items()
        }})  # fmt: skip
    else:
        rows = [(file.name, one.rule, one.node, one.found, one.remedy) for file in files for one in found[file]]
        if rows:
            table(("graph", "rule", "node", "what", "do"), rows)
        say(f"{len(files)} {'graph' if len(files) == 1 else 'graphs'}, {count or 'no'} "
            f"{'violation' if count == 1 else 'violations'} of what {covers} takes")  # fmt: skip
    if count:
        rules = ", ".join(dict.fromkeys(one.rule for violations in found.values() for one in violations))
        raise VerificationError(f"{graphs} breaks rules of {covers} ({rules}); export it with --target {against}")


def _files(named: str) -> tuple[list[Path], str]:
    """Graphs, and the target that they were exported for as far as it can be told."""
    from edgegeo.bundle import open_bundle
    from edgegeo.home import find_bundle

    place = Path(named).expanduser()
    if place.suffix == ".onnx" and not os.path.isdir(place):
        return [place], PORTABLE
    bundle = open_bundle(find_bundle(named), check_hashes=False)
    parts, dialect = bundle.manifest.components, bundle.manifest.dialect
    return [bundle.component(name) for name in parts], MODERN if dialect == "trt-modern" else PORTABLE
