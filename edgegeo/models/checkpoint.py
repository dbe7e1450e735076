"""A checkpoint folder in Hugging Face layout, opened for training, export or reference runs."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError
from edgegeo.models import smolvlm
from edgegeo.schema import SchemaFault, parse

SETTINGS_NAME = "edgegeo_model.json"
REQUIRED_FILES = ("config.json", "tokenizer.json", "preprocessor_config.json")
ADAPTERS = "adapters"


@dataclass(frozen=True)
class ModelSettings:
    """edgegeo_model.json: how a checkpoint is asked. A checkpoint without the file gets its family's defaults."""

    prompts: dict[str, str]
    """Templates by role: embed_text, embed_image, rerank, generate (slots: edgegeo/models/prompts.py)."""
    yes: tuple[str, ...]
    """Casings of the word that means "the same place"; those of one token are used."""
    no: tuple[str, ...]
    adapters: dict[str, str | None] = field(default_factory=dict)
    """Default adapter folder under adapters/ by role (embed, rerank, generate); None for the base as it is."""
    max_new_tokens: int = 32
    planet_seed: int | None = None
    """The planet the checkpoint was trained on; None for a model of the real Earth."""


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint: the float32 model in evaluation mode and all that belongs to it."""

    path: Path
    family: str
    config: Any
    """The transformers configuration object."""
    model: Any
    """SmolVLMForConditionalGeneration on the CPU, float32, eval."""
    tokenizer: Any
    """tokenizers.Tokenizer."""
    image: ImageSpec
    settings: ModelSettings
    stop_ids: tuple[int, ...]

    def adapter(self, role: str) -> Path | None:
        """Folder of the role's default adapter, None where the base itself plays the role."""
        name = self.settings.adapters.get(role)
        return self.path / ADAPTERS / name if name else None


def packaged_checkpoint() -> Path:
    """The folder of pocket, the small checkpoint inside the package."""
    return Path(__file__).resolve().parent.parent / "pocket"


def load_checkpoint(path: str | Path | None = None) -> Checkpoint:
    """Open a checkpoint folder; None opens pocket. CheckpointError says what is missing or unknown, and the remedy."""
    folder = check_folder(packaged_checkpoint() if path is None else Path(path))
    config = _read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind not in smolvlm.MODEL_TYPES:
        raise CheckpointError(f"{folder} holds a '{kind}' model; this edgegeo knows {', '.join(smolvlm.MODEL_TYPES)}")
    tokenizer = smolvlm.load_tokenizer(folder)
    model = smolvlm.load_model(folder)
    return Checkpoint(
        path=folder,
        family=smolvlm.FAMILY,
        config=model.config,
        model=model,
        tokenizer=tokenizer,
        image=smolvlm.image_spec(model.config, _read_json(folder / "preprocessor_config.json")),
        settings=read_settings(folder, tokenizer),
        stop_ids=smolvlm.stop_ids(folder, model.config),
    )


def check_folder(folder: Path) -> Path:
    """The folder itself if it holds what a checkpoint needs; CheckpointError names what it lacks."""
    if not folder.is_dir():
        raise CheckpointError(f"no checkpoint at {folder}; name a folder in Hugging Face layout")
    lacking = [name for name in REQUIRED_FILES if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        lacking.append("model.safetensors")
    if lacking:
        raise CheckpointError(f"{folder} lacks {', '.join(lacking)}; download or save the checkpoint again")
    return folder


def read_settings(folder: Path, tokenizer: Any) -> ModelSettings:
    """edgegeo_model.json of a checkpoint, or its family's defaults where there is none."""
    file = folder / SETTINGS_NAME
    data = _read_json(file) if file.is_file() else smolvlm.default_settings(tokenizer)
    try:
        return parse(ModelSettings, data, SETTINGS_NAME)
    except SchemaFault as fault:
        raise CheckpointError(f"{file}: {fault}") from None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} can't be read as JSON ({error}); download or save it again") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} is not a JSON table; download or save it again")
    return data
