"""M-RoPE: the three positions (time, row, column) of every token of a prompt that holds pictures (Qwen2.5-VL)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def rope_positions(pieces: Sequence[int | tuple[int, int]], start: int = 0) -> tuple[NDArray[np.int64], int]:
    """Positions (3, S) int64 of a prompt's pieces in order, and the position of whatever comes next.

    A number n is n text positions, alike on all three axes; (rows, columns) is a picture's grid of image tokens, row
    by row. A picture takes as many positions as its longer side, however many tokens it has, so the next position is
    not `start` plus the length: keep it for decoding. As `get_rope_index` of transformers 5.23 for still pictures.
    """
    parts: list[NDArray[np.int64]] = []
    for piece in pieces:
        if isinstance(piece, tuple):
            rows, columns = piece
            place = np.indices((1, rows, columns), np.int64).reshape(3, -1)
            length = max(rows, columns)
        else:
            place = np.broadcast_to(np.arange(piece, dtype=np.int64), (3, piece))
            length = piece
        parts.append(place + start)
        start += length
    return np.concatenate(parts, axis=1) if parts else np.zeros((3, 0), np.int64), start
