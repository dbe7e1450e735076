"""How real numbers become codes: 8-bit columns, and blocks of 8, 4, 3 or 2 bits that share a scale.

Methods for blocks: "nearest" looks at the weights only; "hqq" fits zero points as well (Half-Quadratic Quantization,
Badri and Shaji 2023), also without data; "gptq" makes every rounding error good in the rows that follow, as recorded
activations say (Frantar et al., GPTQ, arXiv 2210.17323).
"""

from edgegeo.export.rounding.blocks import Packed, quantise_blocks, quantise_grid, unpacked
from edgegeo.export.rounding.columns import quantise_columns
from edgegeo.export.rounding.planes import narrowed_codes, widening_tables
from edgegeo.export.rounding.rounder import Rounder

__all__ = [
    "Packed", "Rounder", "narrowed_codes", "quantise_blocks", "quantise_columns", "quantise_grid", "unpacked",
    "widening_tables",
]  # fmt: skip
