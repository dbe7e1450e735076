"""edgegeo verify: is a bundle whole, and does it compute here what it computed where it was made?"""

from typing import Annotated

import typer

from edgegeo.cli.flags import JsonFlag, ProviderFlag, ThreadsFlag
from edgegeo.cli.output import emit_json, say, table
from edgegeo.errors import VerificationError


def command(
    bundle: Annotated[
        str | None,
        typer.Argument(help="Bundle folder or name.", show_default="pocket-int8", envvar="EDGEGEO_BUNDLE"),
    ] = None,
    threads: ThreadsFlag = None,
    provider: ProviderFlag = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Re-hash every file of a bundle and re-run the golden inputs stored inside."""
    from edgegeo.home import find_bundle
    from edgegeo.runtime import verify_bundle

    report = verify_bundle(find_bundle(bundle), threads=threads, provider=provider)
    if as_json:
        emit_json(report.to_dict())
    else:
        say(f"{report.bundle}: {report.files} files, every hash right")
        if not report.manifest_hashed:
            say("its manifest holds no hash of its own, so edits of it go unnoticed; export it again to have one")
        rows = [
            (check.name, f"{check.worst:.5g}", f"{check.limit:g}", "ok" if check.passed else "FAILED", check.note)
            for check in report.checks
        ]
        table(("golden output", "worst", "limit", "result", "what"), rows)
    if not report.passed:
        failed = ", ".join(check.name for check in report.checks if not check.passed)
        raise VerificationError(
            f"{report.bundle} computes something else here than where it was made ({failed}); export it on this machine"
        )
