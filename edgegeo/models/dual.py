"""What the families of dual encoders share: a picture or a text becomes one embedding, and there is no decoder."""

from typing import Any

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError
from edgegeo.models.preprocessor import faults, pixels
from edgegeo.recipe import TokenBudget

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
