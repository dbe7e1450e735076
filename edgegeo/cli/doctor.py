"""edgegeo doctor: what this machine has, what it lacks, and how to mend it."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from edgegeo.cli.flags import JsonFlag, flag
from edgegeo.cli.output import emit_json, say
from edgegeo.errors import EdgegeoError

if TYPE_CHECKING:
    from edgegeo.field.finding import Finding

FullFlag = Annotated[bool, flag("--full", verb="doctor", help="Hash bundles and galleries of over 512 MB too.")]


def command(full: FullFlag = False, as_json: JsonFlag = False) -> int:
    """Check installation, hardware, bundles, galleries and server; each finding comes with its remedy. Exit code 1: something has to be mended."""  # noqa: E501
    findings = list(examine(full))
    counts = Counter(finding.level for finding in findings)
    if as_json:
        emit_json({"ok": not counts["fail"], "counts": dict(counts), "findings": findings})
    else:
        width = max(len(finding.topic) for finding in findings)
        for one in findings:
            remedy = f"; {one.remedy}" if one.remedy else ""
            say(f"{one.level:<4}  {one.topic:<{width}}  {one.found}{remedy}")
    return 1 if counts["fail"] else 0


def examine(full: bool) -> Iterator["Finding"]:
    """All findings; whatever one of them could not look at is one itself."""
    from edgegeo.field.examine import examine as look
    from edgegeo.field.finding import FAIL, Finding

    try:
        yield from look(full=full)
    except EdgegeoError as error:
        yield Finding("doctor", FAIL, str(error))
