"""QLoRA's frozen matrices: 4-bit NormalFloat through bitsandbytes (arXiv 2305.14314)."""

from typing import Any

import torch
from torch import nn

from edgegeo.errors import TrainingError


def to_nf4(tower: Any, dtype: torch.dtype) -> None:
    """Replace every frozen Linear below `tower` by its 4-bit form, in place; LoRA matrices keep their type.

    TrainingError without bitsandbytes. The base on disk is untouched; the adapter is trained around the rounding.
    """
    try:
        import bitsandbytes as bnb
    except ImportError:
        raise TrainingError("memory.nf4 needs bitsandbytes; install it with: pip install 'edgegeo[qlora]'") from None
    for name, module in list(tower.named_modules()):
        for child_name, child in list(module.named_children()):
            if not isinstance(child, nn.Linear) or child.weight.requires_grad or "lora_" in f"{name}.{child_name}":
                continue
            small = bnb.nn.Linear4bit(
                child.in_features, child.out_features, child.bias is not None, compute_dtype=dtype, quant_type="nf4"
            )
            small.weight = bnb.nn.Params4bit(child.weight.data, requires_grad=False, quant_type="nf4")
            if child.bias is not None:
                small.bias = nn.Parameter(child.bias.data, requires_grad=False)
            # The CPU's packed form, made at the first pass in evaluation, has no backward pass.
            small.support_avx512bf16_for_cpu = False
            setattr(module, child_name, small.to(child.weight.device))
