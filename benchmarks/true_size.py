"""SmolVLM-256M's true size with random weights: speed does not depend on what the weights say.

Sizes as published with HuggingFaceTB/SmolVLM-256M-Instruct: SigLIP-B/16 at 512 px, 30 decoder layers of width 576.
"""

from pathlib import Path
from typing import Any

import torch

from edgegeo.bundle import ImageSpec
from edgegeo.export.components import Part, write
from edgegeo.models.families.smolvlm import image_features
from edgegeo.models.family import find_family
from edgegeo.recipe import preset
from edgegeo.runtime.sessions import open_session

VISION: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "image_size": 512, "patch_size": 16}  # fmt: skip
TEXT: dict[str, Any] = {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49280,
        "max_position_embeddings": 8192, "rope_theta": 100000, "pad_token_id": 2, "bos_token_id": 1,
        "eos_token_id": 49279}  # fmt: skip


def random_model(seed: int = 0) -> Any:
    """SmolVLMForConditionalGeneration, float32, in evaluation mode."""
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    torch.manual_seed(seed)
    image_token = TEXT["vocab_size"] - 90
    config = SmolVLMConfig(vision_config=VISION, text_config=TEXT, scale_factor=4, image_token_id=image_token,
                           tie_word_embeddings=True)  # fmt: skip
    return SmolVLMForConditionalGeneration(config).eval()


def open_sessions(model: Any, precision: str, folder: Path, threads: int | None) -> dict[str, Any]:
    """Write tower and decoder through the exporter and open them."""
    place = folder / precision
    (place / "onnx").mkdir(parents=True)
    recipe = preset(precision)
    family, image = (
        find_family("smolvlm"),
        ImageSpec("smolvlm", VISION["image_size"], 1, 1 / 255, (0.5,) * 3, (0.5,) * 3, 64),
    )
    parts = {kind: write(Part(kind, kind, model, family, image), recipe, place)[0] for kind in ("vision", "trunk")}
    return {kind: open_session(place / part.file, threads) for kind, part in parts.items()}


@torch.inference_mode()
def torch_vision(model: Any, pixels: Any) -> Any:
    return image_features(model, torch.from_numpy(pixels)).numpy()
