"""Open a checkpoint for export: load, attach or merge the adapters of each role, read prompts and preprocessing."""

import json
from pathlib import Path
from typing import Any

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError
from edgegeo.export.source import RoleSource, Source


def open_source(checkpoint: Path) -> Source:
    from tokenizers import Tokenizer
    from transformers import SmolVLMForConditionalGeneration

    model = SmolVLMForConditionalGeneration.from_pretrained(checkpoint).float().eval()
    settings = json.loads((checkpoint / "edgegeo_model.json").read_text())
    return Source(
        checkpoint.name,
        checkpoint,
        "smolvlm",
        model,
        Tokenizer.from_file(str(checkpoint / "tokenizer.json")),
        image_spec(checkpoint, model.config),
        settings["prompts"],
        tuple(settings["yes"]),
        tuple(settings["no"]),
        (2,),
        24,
        {"embed": RoleSource(model), "rerank": RoleSource(model), "generate": RoleSource(model)},
    )


def image_spec(checkpoint: Path, config: Any) -> ImageSpec:
    """Preprocessing as data, from preprocessor_config.json; CheckpointError for what the runtime doesn't do."""
    file = checkpoint / "preprocessor_config.json"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} can't be read ({error})") from None
    size, vision = data["max_image_size"]["longest_edge"], config.vision_config
    if size != vision.image_size:
        raise CheckpointError(f"{file} resizes to {size} px, the vision tower takes {vision.image_size} px")
    tokens = (vision.image_size // vision.patch_size // config.scale_factor) ** 2
    return ImageSpec(
        "smolvlm", size, data["size"]["longest_edge"], data["resample"], data["rescale_factor"],
        tuple(data["image_mean"]), tuple(data["image_std"]), tokens,
    )  # fmt: skip
