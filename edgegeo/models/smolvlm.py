"""The SmolVLM family (SmolVLM, SmolVLM2, Idefics3): loading, parts and default prompts."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError

FAMILY = "smolvlm"
MODEL_TYPES = ("smolvlm", "idefics3")


@dataclass(frozen=True)
class Parts:
    """The modules of a model, by what they do; they share their weights with it."""

    vision: Any
    """The SigLIP tower, without connector."""
    connector: Any
    """Pixel shuffle and projection."""
    text: Any
    """The Llama decoder, without head."""
    head: Any
    """Hidden state to logits."""


def parts(model: Any) -> Parts:
    """Name the parts of a SmolVLMForConditionalGeneration."""
    return Parts(model.model.vision_model, model.model.connector, model.model.text_model, model.lm_head)


def load_model(folder: Path) -> Any:
    """The model of a folder in float32 and evaluation mode, on the CPU; offline."""
    from transformers import AutoModelForImageTextToText

    try:
        model, info = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, attn_implementation="sdpa", output_loading_info=True
        )
    except Exception as error:  # safetensors and transformers raise many kinds for damaged files
        text = " ".join(str(error).split())[:200]
        raise CheckpointError(f"the weights in {folder} can't be loaded ({text}); save them again") from None
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    lacking = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])} - tied)
    if lacking:
        # transformers fills these with random numbers and only logs it.
        raise CheckpointError(f"the weights in {folder} lack {', '.join(lacking[:3])}; download or save them again")
    model.generation_config.cache_implementation = None
    return model.eval()


def load_tokenizer(folder: Path) -> Any:
    """tokenizers.Tokenizer of a folder."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the Rust side raises bare Exception
        raise CheckpointError(f"{folder / 'tokenizer.json'} is not a tokenizer ({error}); save it again") from None


def image_spec(config: Any, preprocessor: dict[str, Any]) -> ImageSpec:
    """Image preprocessing as data; pictures are never split into tiles (papers.md, 1)."""
    vision = config.vision_config
    size = int(preprocessor.get("max_image_size", {}).get("longest_edge", vision.image_size))
    if size != vision.image_size:
        raise CheckpointError(
            f"preprocessor_config.json makes {size}-pixel pictures, config.json expects {vision.image_size}; "
            "make max_image_size.longest_edge and vision_config.image_size agree"
        )
    return ImageSpec(
        kind=FAMILY,
        size=size,
        longest_edge=int(preprocessor.get("size", {}).get("longest_edge", 4 * size)),
        resample=int(preprocessor.get("resample", 1)),
        rescale=float(preprocessor.get("rescale_factor", 1 / 255)),
        mean=tuple(map(float, preprocessor.get("image_mean", (0.5, 0.5, 0.5)))),
        std=tuple(map(float, preprocessor.get("image_std", (0.5, 0.5, 0.5)))),
        tokens=(vision.image_size // vision.patch_size) ** 2 // config.scale_factor**2,
    )


def default_settings(tokenizer: Any) -> dict[str, Any]:
    """How a foreign SmolVLM is asked, in the words of its chat template; tokenizer: tokenizers.Tokenizer."""
    start = "<|im_start|>" if tokenizer.token_to_id("<|im_start|>") is not None else ""

    def chat(user: str) -> str:
        return f"{start}User:{user}<end_of_utterance>\nAssistant:"

    return {
        "prompts": {
            "embed_text": "{text}",
            "embed_image": "{image}",
            "rerank": chat("{image|text}{image}Do these show the same place? Answer Yes or No."),
            "generate": chat("{image}Where was this photo taken? Answer as <answer>latitude, longitude</answer>."),
        },
        "yes": ["yes", "Yes", "YES", " yes", " Yes", " YES"],
        "no": ["no", "No", "NO", " no", " No", " NO"],
        "adapters": {"embed": None, "rerank": None, "generate": None},
        "max_new_tokens": 64,
        "planet_seed": None,
    }


def stop_ids(folder: Path, config: Any) -> tuple[int, ...]:
    """Token ids that end an answer: generation_config.json, else the text configuration."""
    file = folder / "generation_config.json"
    found: Any = None
    if file.is_file():
        try:
            found = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
        except ValueError:
            raise CheckpointError(f"{file} can't be read as JSON; download or save it again") from None
    if found is None:
        found = config.text_config.eos_token_id
    return tuple(found) if isinstance(found, (list, tuple)) else (int(found),)


def image_features(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Image tokens (B, tokens, hidden) of pixel tensors (B, 3, H, W).

    Goes past `get_image_features`, which drops all-zero pictures (mid grey, after normalising) as padding.
    """
    part = parts(model)
    features: torch.Tensor = part.connector(part.vision(pixel_values=pixels).last_hidden_state)
    return features
