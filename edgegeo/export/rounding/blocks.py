"""Blocks of 2, 3, 4 or 8 bits along K that share a scale, packed as the operators want them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import InputError
from edgegeo.export.rounding.gptq import COLUMNS, inverse_factors, round_in_turn
from edgegeo.export.rounding.grid import as_blocks, fit_scales
from edgegeo.export.rounding.hqq import fit_zero_points
from edgegeo.export.rounding.rounder import Rounder
from edgegeo.export.rounding.slices import in_slices

Array = NDArray[np.float32]
Fitted = tuple[Array, Array, Array | None]
"""Codes (K, C), signed, or unsigned with zero points; scales (K/block, C); zero points (K/block, C) or None."""


class Packed(NamedTuple):
    """A matrix (K, N) as MatMulNBits wants it."""

    codes: NDArray[np.uint8]
    """(N, K/block, bytes of a block), codes below 4 bits as those of 4 that mean the same; a last short block is
    padded."""
    scales: Array
    """(N, K/block)"""
    zeros: NDArray[np.uint8] | None
    """(N, bytes of K/block zero points); None: 8 or 128 for all."""


def quantise_blocks(weight: Array, block_size: int, how: Rounder | None = None, bits: int = 4) -> Packed:
    """Round weight (K, N) to 2, 3, 4 or 8 bits.

    Symmetric methods map the value of largest magnitude in a block to the lowest code, -8 of 4 bits, and keep the zero
    point in the middle, as onnxruntime's own quantiser does; of a few shrunken scales the one with the least error is
    kept.
    """
    k, n = weight.shape
    blocks = -(-k // block_size)
    stored = max(bits, 4)
    codes = np.empty((n, blocks, block_size * stored // 8), np.uint8)
    scales = np.empty((n, blocks), np.float32)
    zeros = np.empty((n, -(-blocks * stored // 8)), np.uint8) if how is not None and how.method == "hqq" else None
    fit, least = _fitter(weight, block_size, how or Rounder(), bits)

    def work(a: int, b: int) -> None:
        found, scale, zero = fit(weight[:, a:b])
        middle = np.float32(2 ** (stored - 1))
        lift = np.float32(2 ** (stored - 1) - 2 ** (bits - 1))
        whole = np.full((blocks * block_size, b - a), 0 if zero is None else np.nan, np.float32)
        whole[:k] = found
        if zero is not None:
            whole[k:] = zero[-1]
        shifted = whole + (middle if zero is None else lift)
        codes[a:b] = _nibbles(shifted.astype(np.uint8).T.reshape(b - a, blocks, block_size), stored)
        scales[a:b] = scale.T
        if zero is not None and zeros is not None:
            zeros[a:b] = _nibbles((zero + lift).T.astype(np.uint8), stored)

    in_slices(work, n, k, least)
    return Packed(codes, scales, zeros)


def quantise_grid(weight: Array, block_size: int, how: Rounder | None = None) -> tuple[NDArray[np.uint8], Array]:
    """Blocks like those of `quantise_blocks`, as ONNX's INT4 stores them, with positive scales.

    weight (K, N), N even, block_size dividing K -> codes (K, N/2) uint8, two signed values a byte, the first in the
    low half; scales (K/block, N) float32, zero point 0. ValueError for a method with zero points, which it has none of.
    """
    k, n = weight.shape
    if how is not None and how.method == "hqq":
        raise ValueError("hqq needs zero points, which 4-bit weights have none of under TensorRT; use nearest or gptq")
    packed = np.empty((k, n // 2), np.uint8)
    scales = np.empty((k // block_size, n), np.float32)
    fit, least = _fitter(weight, block_size, how or Rounder(), 4, positive=True)

    def work(a: int, b: int) -> None:
        codes, scales[:, a:b], _ = fit(weight[:, a:b])
        nibbles = codes.astype(np.int8).view(np.uint8) & np.uint8(15)
        packed[:, a // 2 : b // 2] = nibbles[:, 0::2] | (nibbles[:, 1::2] << np.uint8(4))

    in_slices(work, n, k, least)
    return packed, scales


def unpacked(packed: Packed, rows: int, bits: int = 4) -> Array:
    """The matrix (rows, N) float32 that MatMulNBits multiplies with."""
    n, blocks, _ = packed.codes.shape
    bits = max(bits, 4)
    codes = _halves(packed.codes, bits).astype(np.float32)
    zeros: Array | np.float32 = np.float32(2 ** (bits - 1))
    if packed.zeros is not None:
        zeros = _halves(packed.zeros, bits)[:, :blocks, None].astype(np.float32)
    cells = (codes.reshape(n, blocks, -1) - zeros) * packed.scales[..., None]
    return np.ascontiguousarray(cells.reshape(n, -1)[:, :rows].T)


def _fitter(
    weight: Array, block_size: int, how: Rounder, bits: int, positive: bool = False
) -> tuple[Callable[[Array], Fitted], int]:
    """What rounds some columns, and how many it wants at once."""
    if how.method == "hqq":
        return lambda part: fit_zero_points(part, block_size, bits), 64
    if how.method == "nearest":

        def nearest(part: Array) -> Fitted:
            k, c = part.shape
            codes, scale = fit_scales(as_blocks(part, block_size), bits, positive)
            rows = codes.reshape(block_size, -1, c).transpose(1, 0, 2).reshape(-1, c)
            return rows[:k], scale.reshape(-1, c), None

        return nearest, 2
    if how.method != "gptq" or how.statistics is None:
        raise InputError("gptq can't round without recorded activations; export with samples, or --calibration")
    grams, square = how.statistics.grams(), how.statistics.square
    if sum(len(gram) for gram in grams) != len(weight):
        raise InputError("the calibration has no moments of a matrix that gptq rounds; calibrate with --moments")
    factors = inverse_factors(grams, how.factor)
    importance = square if how.factor is None else square / how.factor**2

    def in_turn(part: Array) -> Fitted:
        return (*round_in_turn(part, factors, importance, block_size, bits, positive), None)

    return in_turn, COLUMNS


def _nibbles(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Two 4-bit codes a byte along the last axis, the first in the low half; 8-bit codes as they are."""
    if bits == 8:
        return codes
    if codes.shape[-1] % 2:
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], 1), np.uint8)], axis=-1)
    return codes[..., 0::2] | (codes[..., 1::2] << np.uint8(4))


def _halves(packed: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)
