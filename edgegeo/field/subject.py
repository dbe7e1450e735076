"""What a plan is made for: the parts of a bundle, or those that an export of a checkpoint would have."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgegeo.bundle import MANIFEST_NAME, Bundle, Segment, open_bundle
from edgegeo.errors import BundleError, CheckpointError, InputError
from edgegeo.field.shape import Shape, read_shape
from edgegeo.field.work import Precisions
from edgegeo.recipe import Recipe, TokenBudget
from edgegeo.runtime.pictures import most_positions

CONFIG_NAME = "config.json"
PROMPT_TOKENS = 32
"""Of the words around a picture, where no bundle says how many."""
NATIVE_PIXELS = 1280 * 28 * 28
"""Area of a picture of native resolution where nothing bounds it: the 1,280 tokens of Qwen2.5-VL's own processor."""


@dataclass(frozen=True)
class Part:
    """One component."""

    name: str
    kind: str
    """"vision", "trunk", "head", "text", or "table" for token embeddings, of which only used rows are read."""
    precision: str
    bytes: float


@dataclass(frozen=True)
class Subject:
    """A model to plan for."""

    name: str
    shape: Shape
    precisions: Precisions
    parts: tuple[Part, ...]
    roles: tuple[str, ...]
    tiles: int
    """Squares that a picture is split into, the whole counted."""
    pixels: int
    """Area of a picture of native resolution; 0 otherwise."""
    picture: int
    """Prompt positions of a picture."""
    prompts: Mapping[str, int]
    """Positions of the words around, for "text", "image" and "generate"."""


def subject_of(bundle: Bundle) -> Subject:
    """A bundle that exists: sizes as they are on disk. BundleError where it holds no config.json of a known model."""
    manifest = bundle.manifest
    if CONFIG_NAME not in manifest.files:
        raise BundleError(f"{bundle.path} holds no {CONFIG_NAME}, so its layers are unknown; plan its checkpoint")
    shape = _sized(read_shape(_json(bundle.file(CONFIG_NAME))), manifest.image.size)
    parts = []
    for name, part in manifest.components.items():
        size = manifest.files[part.file].bytes
        data = manifest.files.get(f"{part.file}_data")
        parts.append(Part(name, part.kind, part.precision, float(size + (data.bytes if data else 0))))
    if manifest.embed_tokens:
        parts.append(Part("embed_tokens", "table", "as stored", float(manifest.files[manifest.embed_tokens].bytes)))
    stored = {part.kind: part.precision for part in parts}
    text = stored.get("trunk") or stored.get("text") or "fp32"
    cache = next((one.cache for one in manifest.components.values() if one.kind == "trunk"), "fp32")
    roles = manifest.roles
    prompts = {
        "text": _words(roles.embed.text_prompt) if roles.embed else 0,
        "image": _words(roles.embed.image_prompt) if roles.embed else 0,
        "generate": _words(roles.generate.prompt) if roles.generate else 0,
    }
    native = manifest.image.max_pixels if shape.tower.image_size == 0 else 0
    tiles = manifest.image.max_tiles
    return Subject(
        name=manifest.name, shape=shape, parts=tuple(parts), tiles=tiles + 1 if tiles > 1 else 1, pixels=native,
        precisions=Precisions(stored.get("vision", "fp32"), text, stored.get("head", text), cache=cache),
        roles=tuple(name for name in ("embed", "rerank", "generate") if getattr(roles, name) is not None),
        picture=1 if shape.dual else most_positions(manifest.image), prompts=prompts,
    )  # fmt: skip


def planned(folder: Path, recipe: Recipe) -> Subject:
    """A checkpoint folder, of which config.json is enough, as `recipe` would export it without adapters."""
    if not (folder / CONFIG_NAME).is_file():
        raise CheckpointError(f"{folder} has neither {MANIFEST_NAME} nor {CONFIG_NAME}: name a bundle or a checkpoint")
    shape = read_shape(_json(folder / CONFIG_NAME))
    budget = recipe.image
    if budget.image_size and shape.tower.image_size:
        shape = _sized(shape, budget.image_size)
    native = 0 if shape.tower.image_size else budget.max_pixels or NATIVE_PIXELS
    tiles = (budget.max_tiles or 1) + 1 if (budget.max_tiles or 1) > 1 else 1
    how = Precisions(recipe.vision, recipe.trunk, recipe.head, recipe.block_size, recipe.kv)
    text = "text" if shape.dual else "trunk"
    parts = [
        Part("vision", "vision", how.vision, how.size(shape.tower.weights, how.vision)),
        Part(text, text, how.text, how.size(shape.text.weights + shape.text_projection, how.text)),
    ]
    if not shape.dual:
        parts.append(Part("head", "head", how.head, how.size(shape.head_weights, how.head)))
    parts.append(Part("embed_tokens", "table", recipe.embeddings, how.size(shape.head_weights, recipe.embeddings)))
    return Subject(
        name=f"{folder.absolute().name}-{recipe.name}", shape=shape, precisions=how, parts=tuple(parts), pixels=native,
        roles=("embed",) if shape.dual else ("embed", "rerank", "generate"), tiles=tiles,
        picture=1 if shape.dual else tiles * shape.tower.image_tokens(native),
        prompts={"text": 1, "image": 1, "generate": PROMPT_TOKENS},
    )  # fmt: skip


def find_subject(place: Path, recipe: Recipe, explicit: bool = False) -> Subject:
    """A bundle or a checkpoint folder; explicit: a precision or budget was named, which a bundle has already."""
    if not (place / MANIFEST_NAME).is_file():
        return planned(place, recipe)
    if explicit:
        raise InputError(f"{place} is a bundle, whose precision and picture size are fixed: leave those flags out")
    # Sizes only: a plan reads no weights.
    return subject_of(open_bundle(place, check_hashes=False))


def with_budget(recipe: Recipe, budget: TokenBudget) -> Recipe:
    """The recipe with another budget for pictures, under its own name."""
    return replace(recipe, image=budget)


def _sized(shape: Shape, size: int) -> Shape:
    """The same model looking at squares of another side."""
    if shape.tower.image_size in (0, size):
        return shape
    return replace(shape, tower=replace(shape.tower, image_size=size))


def _words(prompt: tuple[Segment, ...]) -> int:
    return sum(len(segment.ids) for segment in prompt if segment.ids is not None)


def _json(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} can't be read as JSON ({error}); download or save it again") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{file} is no configuration; download or save it again")
    return found
