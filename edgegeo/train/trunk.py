"""The model as training steps use it: bf16 pictures and sequences in, hidden states out, fast on a CPU."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgegeo.models.families.smolvlm import image_features
from edgegeo.train.data import Bytes

ATTENTION = "edgegeo_matmul"


def matmul_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as three matrix products: here four times faster backwards in bf16 than torch's fused CPU kernel.

    query (B, H, T, D), key and value (B, KV, T, D). Causal where the module is; padding must lie on the right, and
    masks are not looked at: a padded position is never read by a real one. Behind a cache there are more keys, and
    the mask (B, 1, T, keys), 0 or -inf, says which ones a query reads.
    """
    batch, heads, length, dim = query.shape
    groups, keys = key.shape[1:3]
    grouped = query.reshape(batch, groups, heads // groups * length, dim) * (scaling or dim**-0.5)
    scores = (grouped @ key.transpose(-1, -2)).view(batch, groups, heads // groups, length, keys)
    if keys != length:
        assert attention_mask is not None, "positions behind a cache are read with a mask"
        scores = scores + attention_mask[:, :, None]
    elif getattr(module, "is_causal", True):
        future = torch.full((length, length), float("-inf"), dtype=scores.dtype, device=scores.device).triu(1)
        scores = scores + future
    weights = scores.softmax(-1).view(batch, groups, heads // groups * length, keys)
    out = (weights @ value).view(batch, heads, length, dim)
    return out.transpose(1, 2), None


def use_matmul_attention(model: Any) -> None:
    """Let a transformers model run on `matmul_attention` (right padding only)."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, matmul_attention)
    model.set_attn_implementation(ATTENTION)


def picture_tensor(pictures: Bytes, dtype: torch.dtype) -> Tensor:
    """(N, size, size, 3) uint8 to the tower's (N, 3, size, size) in [-1, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
    return (pixels.to(torch.float32) / 127.5 - 1.0).to(dtype).contiguous()


def features_of(model: Any, pictures: Bytes) -> Tensor:
    """Image tokens (N, tokens, hidden)."""
    return image_features(model, picture_tensor(pictures, model.dtype))


def hidden_states(model: Any, ids: Tensor, features: Tensor | None = None) -> Tensor:
    """Last hidden states (N, T, hidden) of right-padded ids (N, T).

    features: image tokens in reading order (pictures, tokens, hidden), put where the placeholders stand.
    """
    states: Tensor = model.model.text_model(inputs_embeds=_inputs(model, ids, features), use_cache=False)[0]
    return states


def _inputs(model: Any, ids: Tensor, features: Tensor | None) -> Tensor:
    inputs: Tensor = model.get_input_embeddings()(ids)
    if features is None:
        return inputs
    slots = (ids == model.config.image_token_id).unsqueeze(-1).expand_as(inputs)
    return inputs.masked_scatter(slots, features.to(inputs.dtype))
