"""Which zoom of a tile pyramid becomes the gallery."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import InputError

Pairs = NDArray[np.int64]
"""(N, 2): x and y of tiles."""


def choose_zoom(
    place: object, asked: int | None, zooms: Sequence[int], tiles: Callable[[int], Iterable[Pairs]]
) -> tuple[int, str]:
    """The zoom asked for, or else the deepest complete one, and a remark where there was a choice.

    InputError for a zoom that is not there.
    """
    if not zooms:
        raise InputError(f"{place} holds no tiles (z/x/y.png, .jpg or .webp)")
    if asked is not None and asked not in zooms:
        raise InputError(f"{place} has no zoom {asked}; it has {_listed(zooms)}")
    if asked is not None or len(zooms) == 1:
        return (zooms[0] if asked is None else asked), ""
    chosen = deepest_complete(zooms, tiles)
    partial = [zoom for zoom in zooms if zoom > chosen]
    deeper = f"; {_listed(partial)} cover only a part of its area" if partial else ""
    return chosen, f"{place} has zooms {_listed(zooms)}: taking {chosen}{deeper} (--zoom takes another)"


def deepest_complete(zooms: Sequence[int], tiles: Callable[[int], Iterable[Pairs]]) -> int:
    """The deepest zoom with a tile in every tile of the last complete one before it; the shallowest one is complete.

    Sea and other blanks are often left out of a pyramid, so one of the four (or sixteen ...) parts is enough.
    """
    best, held = zooms[0], None
    for zoom in zooms[1:]:
        if held is None:
            held = _keys(tiles(best), 0)
        if np.isin(held, _keys(tiles(zoom), zoom - best), assume_unique=True).all():
            best, held = zoom, None
    return best


def in_pieces(pairs: Iterator[Any], size: int = 1 << 16) -> Iterator[Pairs]:
    """Pairs of numbers as arrays of at most `size`."""
    piece: list[Any] = []
    for pair in pairs:
        piece.append(pair)
        if len(piece) == size:
            yield np.array(piece, np.int64)
            piece = []
    if piece:
        yield np.array(piece, np.int64)


def _keys(pieces: Iterable[Pairs], shift: int) -> NDArray[np.int64]:
    """One number for each tile `shift` zooms above, ascending."""
    found = [np.unique(((piece[:, 0] >> shift) << 32) | (piece[:, 1] >> shift)) for piece in pieces]
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)


def _listed(zooms: Sequence[int]) -> str:
    if len(zooms) > 2 and list(zooms) == list(range(zooms[0], zooms[-1] + 1)):
        return f"{zooms[0]} to {zooms[-1]}"
    return ", ".join(map(str, zooms))
