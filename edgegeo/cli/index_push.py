"""edgegeo index push: a gallery copied into a database that many machines search."""

from pathlib import Path
from typing import Annotated

import typer

from edgegeo.cli.flags import JsonFlag, flag
from edgegeo.cli.output import emit_json, progress_bar, say

ToFlag = Annotated[
    str,
    flag("--to", verb="index", help="postgresql://USER@HOST:PORT/DATABASE/GALLERY; HOST:PORT,HOST:PORT of a cluster."),
]
IndexFlag = Annotated[
    str,
    flag("--index", verb="index", help="hnsw (approximate, fast), exact, or auto: hnsw from 20,000 tiles."),
]


def push(
    gallery: Annotated[Path, typer.Argument(help="Gallery folder.", show_default=False)],
    to: ToFlag,
    index: IndexFlag = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Copy a gallery into PostgreSQL with pgvector, in place of what has its name there; all of it, or nothing."""
    from edgegeo.runtime.postgres.address import Address
    from edgegeo.runtime.postgres.push import push_gallery

    with progress_bar() as progress:
        count = push_gallery(gallery, to, index, progress)
    shown = Address.parse(to).shown
    if as_json:
        emit_json({"gallery": str(gallery), "to": shown, "tiles": count})
        return
    say(f"{shown}: {count:,} tiles, read back; search it with --gallery")
