"""edgegeo bench compare: what became slower, larger or less accurate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgegeo.cli.bench.amounts import share
from edgegeo.cli.flags import JsonFlag, flag
from edgegeo.cli.output import emit_json, note, say, table

if TYPE_CHECKING:
    from edgegeo.bench.changes import Change, Comparison

SHOWN = 4
"""Cells named that only one of the results has."""


def command(
    before: Annotated[Path, typer.Argument(help="Results to compare with.", show_default=False)],
    after: Annotated[Path, typer.Argument(help="Results to judge.", show_default=False)],
    fail_on: Annotated[
        str, flag("--fail-on", verb="bench_compare", help="Change of time or peak memory that counts.")
    ] = "5%",
    max_drop: Annotated[
        str, flag("--max-drop", verb="bench_compare", help="Drop of accuracy that counts, in points.")
    ] = "1%",
    across: Annotated[
        bool, flag("--across-machines", verb="bench_compare", help="Compare although the machines differ.")
    ] = False,
    every: Annotated[bool, flag("--all", verb="bench_compare", help="Also list cells that did not change.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Compare cells of the same setting; exit code 1 if any became slower, larger or less accurate, or fails now.

    A time counts as changed if it moved by more than --fail-on and its 95 % interval leaves out "no change".
    """
    from edgegeo.bench.changes import Limits, compare
    from edgegeo.bench.ledger import read_lines
    from edgegeo.bench.rows import newest_rows

    limits = Limits(share(fail_on, "--fail-on"), share(max_drop, "--max-drop"))
    found = compare(newest_rows(read_lines(before)), newest_rows(read_lines(after)), limits, across)
    if as_json:
        emit_json({**vars(found), "changes": [vars(one) | {"bad": one.bad} for one in found.changes], "bad": found.bad})
    else:
        _print(found, every)
    if found.bad:
        raise typer.Exit(1)


def _print(found: "Comparison", every: bool) -> None:
    for text in found.notes:
        note(text)
    shown = [one for one in found.changes if one.verdicts or every]
    if shown:
        table(("cell", "time", "95 %", "memory", "accuracy, points", "verdict"), [_line(one) for one in shown])
    for text, cells in (("only before", found.only_before), ("only after", found.only_after)):
        if cells:
            more = f" and {len(cells) - SHOWN} more" if len(cells) > SHOWN else ""
            note(f"{text}: {', '.join(cells[:SHOWN])}{more}")
    bad = sum(one.bad for one in found.changes)
    same = sum(not one.verdicts for one in found.changes)
    count = len(found.changes)
    say(f"{count} cells compared: {bad} worse, {count - bad - same} otherwise changed, {same} the same")


def _line(one: "Change") -> tuple[str, ...]:
    gained = one.accuracy
    points = "-" if gained is None else (
        f"{100 * gained['value']:+.1f} [{100 * gained['low']:+.1f}, {100 * gained['high']:+.1f}]"
    )  # fmt: skip
    return (
        one.cell, f"{100 * one.time:+.1f} %", f"{100 * one.time_low:+.1f} to {100 * one.time_high:+.1f}",
        f"{100 * one.memory:+.1f} %", points, ", ".join(one.verdicts) or "same",
    )  # fmt: skip
