"""edgegeo train: make a checkpoint and its adapters."""

import typer


def group() -> typer.Typer:
    """The verbs under `edgegeo train`."""
    return typer.Typer(help="Train.")
