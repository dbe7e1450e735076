"""transformers' modules in the forms that exporters take: tensors in, tensors out."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def load(checkpoint: Path) -> Any:
    """The vision-language model in float32."""
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()


class Vision(torch.nn.Module):
    """Tower and connector: pixels (1, 3, H, W) to image tokens (1, tokens, hidden)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower, self.connector = model.model.vision_model, model.model.connector

    def forward(self, pixel_values: Tensor) -> Tensor:
        tokens: Tensor = self.connector(self.tower(pixel_values=pixel_values).last_hidden_state)
        return tokens


class Decoder(torch.nn.Module):
    """Embeddings (B, S, H), mask (B, P + S) and flat past (B, kv, P, hd) to hidden states (B, S, H) and present."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.text = model.model.text_model

    def forward(self, inputs_embeds: Tensor, attention_mask: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        from transformers.cache_utils import DynamicCache, DynamicLayer

        # Filled here, because an exporter takes tensors only, and not by update(), which OpenVINO can't convert.
        cache = DynamicCache()
        for key, value in zip(past[::2], past[1::2], strict=True):
            layer = DynamicLayer()
            layer.lazy_initialization(key, value)
            layer.keys, layer.values = key, value
            cache.layers.append(layer)
        out = self.text(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, past_key_values=cache, use_cache=True
        )
        present = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
        return out.last_hidden_state, *present
