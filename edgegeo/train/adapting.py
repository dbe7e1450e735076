"""What both adapter trainings share: an opened base, a LoRA on it, a loop that keeps the best weights."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgegeo.errors import TrainingError
from edgegeo.models.adapters import hushed_peft
from edgegeo.models.checkpoint import Checkpoint, load_checkpoint
from edgegeo.progress import Progress
from edgegeo.train.data import Drawing, Places, planet_places
from edgegeo.train.diary import Diary
from edgegeo.train.masters import Masters, linear
from edgegeo.train.settings import GpsSettings, RetrieverSettings
from edgegeo.train.talk import Talk
from edgegeo.train.trunk import use_matmul_attention

AdapterSettings = RetrieverSettings | GpsSettings


@dataclass(frozen=True)
class AdapterReport:
    """What an adapter training reached."""

    out: str
    steps: int
    trainable: int
    """Trained parameters."""
    best_step: int
    """The step whose weights were kept, chosen on validation places."""
    validation: dict[str, float]
    """Scores of the kept weights on validation places."""
    before: dict[str, float]
    """Scores of the base without the adapter on the same places."""


@dataclass(frozen=True)
class Base:
    """A checkpoint opened for adapting: its model frozen, in bf16 to compute with, and its data."""

    checkpoint: Checkpoint
    model: Any
    talk: Talk
    train: Places
    validation: Places


def open_base(settings: AdapterSettings, progress: Progress) -> Base:
    """Open the base and its places; nothing of the model is trainable yet."""
    if settings.batch < 2 or settings.steps < 1:
        raise TrainingError(f"batch must be at least 2 and steps at least 1, got {settings.batch} and {settings.steps}")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    checkpoint = load_checkpoint(settings.checkpoint)
    if checkpoint.family.text:
        raise TrainingError(
            f"{checkpoint.path} is a dual encoder, which this version exports but does not train; "
            "train it elsewhere and export the result"
        )
    data = settings.data
    drawn = [
        planet_places(Drawing(data.cache, split, n, checkpoint.image, data.planet_seed), progress)
        for split, n in (("validation", data.validation), ("train", data.places))
    ]
    torch.manual_seed(settings.seed)
    checkpoint.model.requires_grad_(False)
    use_matmul_attention(checkpoint.model)
    talk = Talk(checkpoint.tokenizer, checkpoint.image, checkpoint.settings.prompts)
    return Base(checkpoint, checkpoint.model, talk, drawn[1], drawn[0])


@dataclass(frozen=True)
class LoraShape:
    """The numbers of a LoRA."""

    rank: int
    alpha: int
    dropout: float
    dora: bool
    targets: str


def attach_lora(model: Any, shape: LoraShape) -> Any:
    """The model with an untrained LoRA (gaussian init) on every module that the expression names: a PeftModel."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        lora_dropout=shape.dropout,
        use_dora=shape.dora,
        init_lora_weights="gaussian",
        target_modules=shape.targets,
        bias="none",
    )
    try:
        with hushed_peft():
            return get_peft_model(model, config)
    except ValueError as error:
        raise TrainingError(f"the LoRA doesn't fit this model ({error}); change --set targets=...") from None


def save_lora(adapted: Any, weights: Mapping[str, Tensor], out: Path) -> None:
    """A PEFT folder with the weights in float16; machine paths are left out of its configuration."""
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name in weights:
                parameter.data = weights[name].to(torch.float16)
    for config in adapted.peft_config.values():
        config.inference_mode = True
    adapted.save_pretrained(str(out), safe_serialization=True)
    (out / "README.md").unlink(missing_ok=True)
    file = out / "adapter_config.json"
    facts = json.loads(file.read_text(encoding="utf-8")) | {"base_model_name_or_path": None}
    file.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for written in out.iterdir():
        written.chmod(0o644)  # safetensors writes for the owner alone


def run_steps(
    settings: AdapterSettings,
    masters: Masters,
    lr: float,
    loss: Callable[[np.ndarray, np.random.Generator], Tensor],
    validate: Callable[[], dict[str, float]],
    goal: Callable[[dict[str, float]], float],
    places: int,
    progress: Progress,
) -> tuple[int, dict[str, float], dict[str, float]]:
    """Train and go back to the best validated weights: their step, their scores, the scores before the first step."""
    diary = Diary(settings.out.with_name(settings.out.name + ".diary.jsonl"))
    before = validate()
    diary.write(0, **before)
    best_step, best, best_weights = 0, before, masters.weights()
    for number in range(settings.steps):
        rng = np.random.default_rng((settings.seed, number))
        value = loss(rng.choice(places, min(settings.batch, places), replace=False), rng)
        value.backward()
        masters.step(linear(number, settings.steps, settings.warmup, lr))
        diary.add({"loss": float(value.detach())})
        done = number + 1
        if done % settings.validate_every == 0 or done == settings.steps:
            scores = validate()
            diary.write(done, **scores)
            if goal(scores) >= goal(best):
                best_step, best, best_weights = done, scores, masters.weights()
        progress("adapting", done, settings.steps)
    masters.restore(best_weights)
    return best_step, best, before
