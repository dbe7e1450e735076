"""edgegeo bench: measure, report, compare, choose."""

from typing import Any

import typer
from typer.core import TyperGroup


class RunUnlessNamed(TyperGroup):
    """A group whose first verb needs no name: `edgegeo bench --batch 1` is `edgegeo bench run --batch 1`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the verb in front where none is named."""
        if not args or args[0] not in (*self.commands, "-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


def group() -> typer.Typer:
    """The `bench` command group."""
    from edgegeo.cli.bench import best, compare, report, run

    app = typer.Typer(
        cls=RunUnlessNamed,
        help="Latency, memory and energy against accuracy. Without a verb it measures: edgegeo bench [BUNDLES...] is "
        "edgegeo bench run [BUNDLES...]; its options: edgegeo bench run --help.",
    )
    app.command("run")(run.command)
    app.command("report")(report.command)
    app.command("compare")(compare.command)
    app.command("best")(best.command)
    return app
