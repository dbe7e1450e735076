"""Codes of 2 and 3 bits as they are stored: a plane of two bits each and, of three bits, one of the highest bits.

onnxruntime multiplies blocks of 4 and 8 bits; smaller codes are widened to its 4 when a session opens, so they take
less disk and less to load, and then the memory and time of 4 bits.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def narrowed_codes(codes: Bytes, bits: int) -> tuple[Bytes, ...]:
    """4-bit codes (..., block / 2), two a byte, of 2 or 3 bits: planes (..., block / 4) and for 3 (..., block / 8)."""
    middle = 8 - 2 ** (bits - 1)
    both = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:-1], -1) - np.uint8(middle)
    low = _packed(both & 3, 2)
    return (low,) if bits == 2 else (low, _packed(both >> 2, 1))


def widening_tables(bits: int) -> tuple[Bytes, ...]:
    """Of each plane, the 4-bit codes (256, 2) or (256, 4), two a byte, that a byte of it stands for; planes are joined
    by a bitwise or."""
    values = np.arange(256, dtype=np.uint8)[:, None]
    low = (values >> (2 * np.arange(4, dtype=np.uint8))) & 3
    if bits == 2:
        return (_packed(low + np.uint8(6), 4),)
    high = (values >> np.arange(8, dtype=np.uint8)) & 1
    # Of code + 4 the two highest bits are 01 below 4 and 10 from there on.
    return _packed(low, 4), _packed(np.where(high > 0, np.uint8(8), np.uint8(4)), 4)


def _packed(codes: NDArray[Any], bits: int) -> Bytes:
    """Codes (..., n) of 1, 2 or 4 bits, the first in the lowest bits of a byte."""
    apart = codes.reshape(*codes.shape[:-1], -1, 8 // bits)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return np.asarray(np.bitwise_or.reduce(apart.astype(np.uint8) << shifts, axis=-1), np.uint8)
