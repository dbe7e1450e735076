"""HQQ (Badri and Shaji, Half-Quadratic Quantization, 2023), as onnxruntime.quantization computes it.

Its zero points are real numbers, for which MatMulNBits has no fast kernel on the CPU (60 times slower at decoding,
onnxruntime 1.31): they are rounded to the 4 or 8 bits that it has one for, and codes and scales are fitted to them.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def fit_zero_points(part: Array, block_size: int, bits: int) -> tuple[Array, Array, Array]:
    """Codes 0..2^bits-1 (K, C), scales and zero points (K/block, C), all float32, of columns (K, C)."""
    import torch
    from onnxruntime.quantization.matmul_nbits_quantizer import HQQWeightOnlyQuantConfig, HQQWeightOnlyQuantizer

    k, c = part.shape
    blocks, most = -(-k // block_size), 2**bits - 1
    quantizer = HQQWeightOnlyQuantizer(HQQWeightOnlyQuantConfig(block_size=block_size, bits=bits))
    rows = torch.from_numpy(np.ascontiguousarray(part.T))
    _, scale, zero = quantizer.quantize_internal(rows, bits=bits, group_size=block_size)
    cells = np.zeros((blocks * block_size, c), np.float32)
    cells[:k] = part
    cells = cells.reshape(blocks, block_size, c)
    zeros = np.clip(np.rint(zero.numpy().T), 0, most).astype(np.float32)[:, None]
    scales = np.ascontiguousarray(scale.numpy().T, np.float32)[:, None]
    codes = np.clip(np.rint(cells / scales) + zeros, 0, most)
    for _ in range(2):
        # The scale of least squares for these codes, and the codes that are nearest under it.
        signed = codes - zeros
        power = (signed * signed).sum(axis=1, keepdims=True)
        scales = np.where(power > 0, (signed * cells).sum(axis=1, keepdims=True) / np.maximum(power, 1e-12), scales)
        scales = np.where(scales == 0, np.float32(1.0), scales).astype(np.float32)
        codes = np.clip(np.rint(cells / scales) + zeros, 0, most)
    return codes.reshape(-1, c)[:k].astype(np.float32), scales[:, 0], zeros[:, 0]
