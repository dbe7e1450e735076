"""A checkpoint opened for an adapter: frozen, in the type it computes in, with a LoRA put on and taken off again."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgegeo.errors import TrainingError
from edgegeo.models.adapters import hushed_peft
from edgegeo.models.checkpoint import Checkpoint, load_checkpoint
from edgegeo.models.family import Seen
from edgegeo.models.lineage import record_base
from edgegeo.runtime.pictures import Picture
from edgegeo.train.parallel import World
from edgegeo.train.sequences import Batch, Row, Writer, collate
from edgegeo.train.settings import Lora, Memory, Schedule
from edgegeo.train.trunk import use_matmul_attention

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
TOWERS = ("all", "vision", "text")
STRIDE = 100
SAMPLE = 1 << 16
"""Bytes at either end of a weights file that tell it from another one of its size."""


@dataclass
class Learner:
    """A frozen model, perhaps with a LoRA, that computes hidden states of rows."""

    checkpoint: Checkpoint
    model: Any
    """The transformers model, with LoRA layers inside where there are some."""
    writer: Writer
    world: World
    adapted: Any = None
    """PEFT's wrapper around it."""
    sees_learning: bool = False
    """Whether anything before the decoder learns; if not, pictures are seen without a graph."""
    checkpointing: bool = False
    """Whether layers are computed again for their gradients instead of kept."""
    stride: int = STRIDE
    """Rows that are computed at once where nothing is learned."""

    def states(self, rows: list[Row], tail: Tensor | None = None) -> tuple[Tensor, Batch]:
        """Last hidden states (B, S + Q, hidden) of rows, and the rows as they were padded."""
        batch = collate(rows, self.writer.pad, self.world.device)
        pictures = self.seen(batch.pictures)
        return self.checkpoint.family.hidden(self.model, batch.ids, pictures, tail, batch.lengths), batch

    def seen(self, pictures: tuple[Picture, ...]) -> tuple[Picture, ...]:
        """Pictures with their image tokens; those that have them stay as they are."""
        if all(isinstance(picture, Seen) for picture in pictures):
            return pictures
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.sees_learning):
            rows = self.checkpoint.family.features(self.model, pictures)
        return tuple(Seen(p.inputs, p.layout, p.grid, row) for p, row in zip(pictures, rows, strict=True))

    @property
    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """The LoRA's parameters by name."""
        holder = self.adapted if self.adapted is not None else self.model
        return [(name, p) for name, p in holder.named_parameters() if p.requires_grad]


def open_learner(path: Path | None, schedule: Schedule, memory: Memory, world: World) -> Learner:
    """Open a checkpoint with nothing trainable; TrainingError for what can't be trained."""
    _check(schedule, world)
    if memory.dtype not in DTYPES:
        raise TrainingError(f"memory.dtype must be bf16 or fp32, not {memory.dtype!r}")
    if schedule.threads:
        torch.set_num_threads(schedule.threads)
    checkpoint = load_checkpoint(path)
    if checkpoint.family.text:
        raise TrainingError(
            f"{checkpoint.path} is a dual encoder, which this version exports but does not train; "
            "train it elsewhere and export the result"
        )
    model = checkpoint.model
    torch.manual_seed(schedule.seed)
    model.requires_grad_(False)
    if checkpoint.family.name == "smolvlm":
        use_matmul_attention(model)
    return Learner(checkpoint, model, Writer(checkpoint), world, stride=min(STRIDE, schedule.chunk))


def _check(schedule: Schedule, world: World) -> None:
    counts = {
        "steps": schedule.steps, "chunk": schedule.chunk, "validate_every": schedule.validate_every,
        "save_every": schedule.save_every,
    }  # fmt: skip
    for name, value in counts.items():
        if value < 1:
            raise TrainingError(f"schedule.{name} must be at least 1, not {value}")
    if schedule.batch < max(2, world.size):
        raise TrainingError(f"batch must be at least {max(2, world.size)} (2, and one a process), not {schedule.batch}")
    if schedule.epochs is not None and not schedule.epochs > 0:
        raise TrainingError(f"schedule.epochs must be above 0, not {schedule.epochs}")


def weights_hash(checkpoint: Checkpoint) -> str:
    """Tells a base from others without reading it whole: sizes of its weights files, their headers, and both ends."""
    digest = hashlib.sha256()
    for file in sorted(checkpoint.path.glob("*.safetensors")):
        size = file.stat().st_size
        with file.open("rb") as opened:
            digest.update(f"{file.name} {size} ".encode() + opened.read(SAMPLE))
            opened.seek(max(0, size - SAMPLE))
            digest.update(opened.read())
    return digest.hexdigest()


def attach_lora(learner: Learner, shape: Lora, towers: str | None = None) -> None:
    """Put an untrained LoRA on the model. towers: instead of the shape's own targets."""
    from peft import LoraConfig, get_peft_model

    targets = towers or shape.targets
    config = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        lora_dropout=shape.dropout,
        use_dora=shape.dora,
        init_lora_weights="gaussian",
        target_modules=matrices(learner, targets) if targets in TOWERS else targets,
        bias="none",
    )
    try:
        with hushed_peft():
            learner.adapted = get_peft_model(learner.model, config)
    except ValueError as error:
        raise TrainingError(f"the LoRA doesn't fit this model ({error}); change its targets or shape") from None
    learner.model = learner.adapted.base_model.model
    parts = learner.checkpoint.family.parts(learner.model)
    early = [part for part in (parts.vision, parts.connector) if part is not None]
    learner.sees_learning = any(p.requires_grad for part in early for p in part.parameters())


def matrices(learner: Learner, towers: str) -> list[str]:
    """Names of the matrices in the layers of the vision tower, the decoder, or both."""
    parts = learner.checkpoint.family.parts(learner.model)
    wanted = {"vision": (parts.vision,), "text": (parts.text,), "all": (parts.vision, parts.text)}[towers]
    inside = {id(module) for part in wanted for module in part.modules()}
    return [
        name
        for name, module in learner.model.named_modules()
        if id(module) in inside and isinstance(module, nn.Linear) and any(word.isdigit() for word in name.split("."))
    ]


def settle(learner: Learner, memory: Memory) -> None:
    """Bring the frozen model into the type it computes in, to its device, and save memory as asked."""
    dtype, model = DTYPES[memory.dtype], learner.model
    if memory.nf4:
        from edgegeo.train.nf4 import to_nf4

        to_nf4(learner.checkpoint.family.parts(model).text, dtype)
    model.to(device=learner.world.device, dtype=dtype)
    reads_any_type(learner.checkpoint.family.parts(model).vision)
    if memory.checkpointing:
        # transformers 5.23 renamed it.
        enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
        enable({"use_reentrant": False})
        learner.checkpointing = True
    model.train()


def reads_any_type(tower: nn.Module) -> None:
    """Pixels come as float32; not every family's tower converts them itself."""
    tower.register_forward_pre_hook(_in_its_type, with_kwargs=True)


def _in_its_type(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    like = next(module.parameters())

    def own(value: Any) -> Any:
        return value.to(like) if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(own(value) for value in args), {name: own(value) for name, value in named.items()}


def save_lora(adapted: Any, weights: Mapping[str, Tensor], out: Path) -> None:
    """A PEFT folder, float16 where all weights fit it, else float32; its configuration names no path of a machine."""
    largest = max(float(weight.abs().max()) for weight in weights.values())
    dtype = torch.float16 if largest <= torch.finfo(torch.float16).max else torch.float32
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name in weights:
                parameter.data = weights[name].to(parameter.device, dtype)
    for config in adapted.peft_config.values():
        config.inference_mode = True
    adapted.save_pretrained(str(out), safe_serialization=True)
    (out / "README.md").unlink(missing_ok=True)
    file = out / "adapter_config.json"
    facts = json.loads(file.read_text(encoding="utf-8")) | {"base_model_name_or_path": None}
    file.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    record_base(adapted, out)
    for written in out.iterdir():
        written.chmod(0o644)  # safetensors writes for the owner alone
