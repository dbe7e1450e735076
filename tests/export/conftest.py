"""A tiny SmolVLM with random weights of visible size, the torch oracle of the export tests."""

from typing import Any

import pytest


@pytest.fixture(scope="session")
def tiny() -> Any:
    """SmolVLMForConditionalGeneration: 32 px, patch 8, 2 + 2 layers, grouped keys, untrained but not degenerate."""
    import torch
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    torch.manual_seed(7)
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
              "image_size": 32, "patch_size": 8}  # fmt: skip
    text = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 96,
            "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
    config = SmolVLMConfig(
        vision_config=vision, text_config=text, scale_factor=2, image_token_id=5, tie_word_embeddings=True
    )
    model = SmolVLMForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Zero biases and unit norms would hide a forgotten one.
            noise = torch.randn_like(parameter)
            parameter.copy_(1 + 0.2 * noise if "norm" in name and "weight" in name else 0.15 * noise)
    return model
