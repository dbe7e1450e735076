"""What the families of dual encoders share: a picture or a text becomes one embedding, and there is no decoder."""

from typing import Any

import torch
from torch import Tensor

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError
from edgegeo.models.family import Family
from edgegeo.models.preprocessor import faults, pixels
from edgegeo.recipe import TokenBudget
from edgegeo.runtime.pictures import Picture

SETTINGS: dict[str, Any] = {
    "prompts": {"embed_text": "{text}", "embed_image": "{image}"},
    "yes": [],
    "no": [],
    "adapters": {"embed": None},
    "planet_seed": None,
}
"""edgegeo_model.json of a checkpoint that only embeds."""
PROCESSORS = {"clip": ("CLIPImageProcessor", "CLIPFeatureExtractor"), "siglip": ("SiglipImageProcessor",)}
"""Classes that a kind of preprocessing follows; the second is an old name of the first."""


class DualEncoder(Family):
    """A family of two towers in one space; what differs between such families is left to them."""

    def default_settings(self, tokenizer: Any) -> dict[str, Any]:
        """Texts and pictures as they are."""
        return SETTINGS

    def text_features(self, model: Any, ids: Tensor) -> Tensor:
        """(B, dim)."""
        features: Tensor = model.get_text_features(input_ids=ids).pooler_output
        return features

    def image_features(self, model: Any, picture: Picture) -> Tensor:
        """(1, dim)."""
        pixels = torch.from_numpy(picture.inputs["pixel_values"])
        other = pixels.shape[-1] != model.config.vision_config.image_size
        features: Tensor = model.get_image_features(pixel_values=pixels, interpolate_pos_encoding=other).pooler_output
        return features


def around(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids that a tokenizers.Tokenizer writes before and after a text."""
    plain = list(tokenizer.encode("a", add_special_tokens=False).ids)
    whole = list(tokenizer.encode("a", add_special_tokens=True).ids)
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return tuple(whole[:start]), tuple(whole[start + len(plain) :])
    raise CheckpointError("the tokenizer rewrites a text when it adds control tokens; save the checkpoint's own again")


def plain_spec(
    kind: str, size: int, preprocessor: dict[str, Any], mean: tuple[float, ...], std: tuple[float, ...],
    shortest_edge: int = 0,
) -> ImageSpec:  # fmt: skip
    """Image preprocessing of one picture as one row. mean, std: the processor's defaults."""
    found = faults(preprocessor, *PROCESSORS[kind])
    if preprocessor.get("do_pad"):
        found.append("do_pad")
    if found:
        raise CheckpointError(
            f"preprocessor_config.json has {', '.join(found)}, which this version does not reproduce; it knows "
            f"{PROCESSORS[kind][0]}"
        )
    return ImageSpec(
        kind=kind,
        size=size,
        **pixels(preprocessor, 3, mean, std),
        tokens=1,
        shortest_edge=shortest_edge,
    )


def square(value: Any, what: str) -> int:
    """The side of a square given as a number or as height and width."""
    if isinstance(value, dict) and value.get("height") and value.get("height") == value.get("width"):
        value = value["height"]
    if isinstance(value, int) and value > 0:
        return value
    raise CheckpointError(f"preprocessor_config.json gives {what} {value!r:.60}; this version needs a square")


def budget_size(budget: TokenBudget | None, own: int, patch: int) -> int:
    """Side of the picture under a budget; CheckpointError for one that a dual encoder can't keep."""
    if budget is None:
        return own
    if budget.max_pixels is not None or (budget.max_tiles or 1) > 1:
        raise CheckpointError("a dual encoder sees one square picture: set image_size, not max_tiles or max_pixels")
    size = own if budget.image_size is None else budget.image_size
    if size < patch or size % patch:
        raise CheckpointError(f"a picture of {size} px is not filled by patches of {patch} px; choose a multiple")
    return size
