"""What an export will need, told before it starts: weights, the largest matrix, sessions, disk; and whether it fits.

Everything follows from the configuration (the model is laid out without memory) and the headers of the weights, so a
plan for a model that no machine here could load needs nothing but its config.json.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError, DeviceError, one_line
from edgegeo.export.components import KINDS_OF_DUAL, KINDS_OF_ROLE, module, precision
from edgegeo.export.decoder_shape import trunk_shape
from edgegeo.export.plan import Planned, stored_bytes
from edgegeo.export.windows import WINDOW_BYTES
from edgegeo.measure import available_mb
from edgegeo.models.adapters import is_lora
from edgegeo.models.checkpoint import (
    ADAPTERS,
    PREPROCESSORS,
    SETTINGS_NAME,
    find_config,
    load_tokenizer,
    packaged_checkpoint,
    read_image_spec,
)
from edgegeo.models.family import Family, Parts
from edgegeo.models.hub import checkpoint_name
from edgegeo.models.weights import FULL_BYTES, stored_weights
from edgegeo.recipe import BYTES, DIALECTS, SESSION, Recipe, preset
from edgegeo.runtime.pictures import most_positions

MB = 2**20
PROGRAM_MB = 700.0
"""torch, transformers and onnxruntime themselves, and the activations of a few pictures."""
LONG_PICTURE = 1280
"""Image tokens above which a picture is called long: the default of Qwen2.5-VL's own processor, and minutes on a small
machine where a checkpoint's file allows more (12,845,056 pixels are 16,384 tokens)."""
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Preview:
    """Estimates in MB (2**20 bytes), rather too large than too small (measured: benchmarks/results/real_size.md)."""

    name: str
    parameters: int
    dtype: str
    """What the weights are stored in."""
    weights_mb: float
    """Weights: in memory as float32 for small models; for large ones as stored, mapped from their files (safetensors),
    so that they fill what memory is left and are read again where it is not enough."""
    mapped: bool
    """Whether the weights stay as stored."""
    in_parts: bool
    """Whether the model is too large for an fp32 bundle, so that its fp32 graphs are proved part by part."""
    parts: tuple[Planned, ...]
    """What the bundle will hold."""
    matrix_mb: float
    """The largest matrix while it is widened and quantised."""
    session_mb: float
    """The largest session: of the bundle, or of an fp32 part in its proof."""
    memory_mb: float
    """Most memory at any time, without mapped weights."""
    when: str
    """The stage that needs it."""
    disk_mb: float
    """Most disk beside the output at any time."""
    available_mb: float
    free_disk_mb: float
    layer_mb: float
    """One decoder layer in float32, which is how much of a large model is widened at a time."""
    picture_positions: int = 0
    """Most prompt positions of a picture; 0 for a dual encoder, or where the folder holds no image settings yet."""
    positions: int = 0
    """Positions that the decoder reads; 0 for a dual encoder."""
    smaller: str = ""
    """The flag that makes pictures shorter, where they are long; "" where they are not."""

    @property
    def fits(self) -> bool:
        """Whether memory and disk suffice."""
        return self.memory_mb <= self.available_mb and self.disk_mb <= self.free_disk_mb

    @property
    def roomy(self) -> bool:
        """Whether mapped weights fit beside all else; if not, they are read from disk again and again."""
        return not self.mapped or self.memory_mb + self.weights_mb <= self.available_mb

    @property
    def bundle_mb(self) -> float:
        """Size of the bundle."""
        return sum(part.megabytes for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        plain = asdict(self) | {"fits": self.fits, "roomy": self.roomy, "bundle_mb": self.bundle_mb}
        return plain | {"parts": [asdict(part) for part in self.parts]}


def preview(checkpoint: Path | None, recipe: Recipe, out: Path, adapters: Mapping[str, Path] | None = None) -> Preview:
    """Estimate the export of a checkpoint folder, of which config.json is enough. CheckpointError for unknown kinds.

    adapters: role -> folder, as named by the user; the checkpoint's own choice is read from its settings.
    """
    folder = packaged_checkpoint() if checkpoint is None else checkpoint
    family, config = find_config(folder)
    # What the decoder's graph would refuse is refused before any weights are read.
    positions = 0 if family.text else trunk_shape(config.get_text_config(), DIALECTS[recipe.target]).max_positions
    spec = _image_spec(folder, family, config, recipe)
    model = _laid_out(config, family)
    parts, count = family.parts(model), sum(p.numel() for p in model.parameters())
    stored_as, stored_size = "bfloat16", 2.0 * count
    if any(folder.glob("*.safetensors")):
        stored = stored_weights(folder)
        stored_as, stored_size = str(stored.dtype).removeprefix("torch."), float(stored.bytes)
    lean = 4 * count > FULL_BYTES
    planned = _planned(family, parts, model, recipe, _chosen(folder, family, adapters or {}))
    exact = tuple(
        replace(p, precision="fp32", megabytes=_part_mb(p, parts, model, "fp32", recipe.block_size)) for p in planned
    )
    exact_recipe = {recipe.vision, recipe.trunk, recipe.head} == {"fp32"}
    weights = (stored_size if lean else 4.0 * count) / MB
    if not lean:  # every adapted role has merged matrices of its own
        weights += sum(p.megabytes for p in exact if "_" in p.name and p.kind != "table")
    matrix = _matrix_bytes(parts) / MB
    layer = max((4.0 * sum(p.numel() for p in one.parameters()) for one in _layers(parts)), default=0.0) / MB
    held, widened = (0.0, max(matrix, layer)) if lean else (weights, 0.0)
    sessions = [p.megabytes * SESSION[p.precision] for p in planned if p.kind != "table"]
    whole = sum(p.megabytes * SESSION["fp32"] for p in exact if p.kind != "table")
    proof = max(p.megabytes if p.kind != "trunk" else min(p.megabytes, WINDOW_BYTES / MB) for p in exact)
    proof *= SESSION["fp32"]
    stages = {"writing": held + matrix, "comparing": held + widened + sum(sessions)}
    disk = sum(p.megabytes for p in planned)
    if lean and not exact_recipe:
        stages["proving fp32 in parts"] = proof + widened
        disk += proof
    elif not exact_recipe:
        stages["comparing"] += whole
        disk += sum(p.megabytes for p in exact)
    when = max(stages, key=stages.__getitem__)
    return Preview(
        name=checkpoint_name(folder), parameters=count, dtype=stored_as, weights_mb=weights, mapped=lean,
        in_parts=lean and not exact_recipe, parts=planned, matrix_mb=matrix,
        session_mb=max([*sessions, proof if lean else 0.0]), memory_mb=PROGRAM_MB + stages[when], when=when,
        disk_mb=disk, available_mb=available_mb(), free_disk_mb=_free(out) / MB, layer_mb=layer,
        picture_positions=0 if spec is None or family.text else most_positions(spec), positions=positions,
        smaller="" if spec is None else _smaller(spec),
    )  # fmt: skip


def require_room(seen: Preview, recipe: Recipe, smaller: Preview | None = None) -> None:
    """DeviceError with advice where memory or disk will not suffice; smaller: the same export at 4 bits."""
    if seen.disk_mb > seen.free_disk_mb:
        raise DeviceError(
            f"exporting {seen.name} as {recipe.name} needs about {_gib(seen.disk_mb)} GiB of disk and "
            f"{_gib(seen.free_disk_mb)} GiB are free beside the output; free some, choose another place with -o, or "
            "--force"
        )
    if seen.memory_mb > seen.available_mb:
        advice = f"use a machine with {_gib(seen.memory_mb)} GiB free, a smaller model"
        if smaller is not None and smaller.memory_mb <= seen.available_mb:
            advice = f"use --int4 ({_gib(smaller.memory_mb)} GiB), {advice.removeprefix('use ')}"
        raise DeviceError(
            f"exporting {seen.name} as {recipe.name} needs about {_gib(seen.memory_mb)} GiB of memory ({seen.when}) "
            f"and {_gib(seen.available_mb)} GiB are free; {advice}, or --force"
        )


def check_room(
    checkpoint: Path | None, recipe: Recipe, out: Path, adapters: Mapping[str, Path] | None = None, force: bool = False
) -> Preview:
    """The preview of an export that fits; DeviceError for one that does not, unless `force`."""
    seen = preview(checkpoint, recipe, out, adapters)
    if not seen.fits and not force:
        smaller = None if recipe.trunk == "int4" else preview(checkpoint, preset("int4"), out, adapters)
        require_room(seen, recipe, smaller)
    return seen


def _image_spec(folder: Path, family: Family, config: Any, recipe: Recipe) -> ImageSpec | None:
    """What pictures will be; None where the folder holds too little to say."""
    if not (folder / TOKENIZER).is_file() or not any((folder / name).is_file() for name in PREPROCESSORS):
        return None
    return read_image_spec(folder, family, config, load_tokenizer(folder), recipe.image)


def _smaller(spec: ImageSpec) -> str:
    """The flag for shorter pictures where they are longer than `LONG_PICTURE`."""
    if spec.max_pixels:
        return f"--max-pixels {LONG_PICTURE * spec.size**2}" if spec.max_pixels > LONG_PICTURE * spec.size**2 else ""
    if most_positions(spec) <= LONG_PICTURE:
        return ""
    return "fewer --tiles" if spec.max_tiles > 1 else "a smaller --image-size"


def _laid_out(config: Any, family: Family) -> Any:
    """The model without memory for its weights."""
    import torch
    import transformers

    kind = transformers.AutoModel if family.text else transformers.AutoModelForImageTextToText
    try:
        with torch.device("meta"):
            return kind.from_config(config)
    except Exception as error:  # transformers raises many kinds for impossible numbers
        raise CheckpointError(f"config.json describes no model that can be built ({one_line(error)})") from None


def _chosen(folder: Path, family: Family, adapters: Mapping[str, Path]) -> dict[str, bool]:
    """Role -> whether a LoRA of its own plays it; queries leave the backbone as it is."""
    file = folder / SETTINGS_NAME
    try:
        named = json.loads(file.read_text(encoding="utf-8")).get("adapters", {}) if file.is_file() else {}
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{file} can't be read as JSON ({error}); download or save it again") from None
    own = {role: folder / ADAPTERS / name for role, name in named.items() if name}
    found = own | dict(adapters)
    return {role: role in found and is_lora(found[role]) for role in family.roles}


def _planned(
    family: Family, parts: Parts, model: Any, recipe: Recipe, adapted: Mapping[str, bool]
) -> tuple[Planned, ...]:
    """As `components.layout` names them, if every LoRA touches the decoder only."""
    kinds = KINDS_OF_DUAL if family.text else KINDS_OF_ROLE
    shared: dict[str, list[str]] = {}
    for role in sorted(family.roles, key=lambda role: adapted[role]):
        for kind in kinds[role]:
            own = kind == "trunk" and adapted[role] and "trunk" in shared
            shared.setdefault(f"{kind}_{role}" if own else kind, []).append(role)
    out = []
    for name, roles in shared.items():
        kind = name.partition("_")[0]
        draft = Planned(name, kind, precision(kind, recipe), tuple(roles), 0.0)
        out.append(replace(draft, megabytes=_part_mb(draft, parts, model, draft.precision, recipe.block_size)))
    if not family.text:
        size = model.get_input_embeddings().weight.numel() * BYTES[recipe.embeddings] / MB
        out.append(Planned("embed_tokens", "table", recipe.embeddings, tuple(family.roles), size))
    return tuple(out)


def _part_mb(part: Planned, parts: Parts, model: Any, stored: str, block: int) -> float:
    if part.kind == "table":
        return float(model.get_input_embeddings().weight.numel() * BYTES[stored] / MB)
    return stored_bytes(module(part.kind, parts), stored, block) / MB


def _matrix_bytes(parts: Parts) -> float:
    """The largest matrix in float32 with its codes; a decoder's gate and up projections are joined first."""
    import torch

    head = 5.0 * parts.head.weight.numel() if getattr(parts.head, "weight", None) is not None else 0.0
    inner = [m.weight.numel() for part in (parts.vision, parts.connector, parts.text) if part is not None
             for m in part.modules() if isinstance(m, torch.nn.Linear)]  # fmt: skip
    return max([head, *(17.0 * size for size in inner)])


def _layers(parts: Parts) -> list[Any]:
    return list(getattr(parts.text, "layers", []))


def _free(out: Path) -> float:
    place = out.absolute()
    while not place.exists():
        place = place.parent
    return float(shutil.disk_usage(place).free)


def _gib(megabytes: float) -> str:
    return f"{megabytes / 1024:.1f}"
