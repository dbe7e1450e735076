"""The SmolVLM family (SmolVLM, SmolVLM2, Idefics3): SigLIP, pixel shuffle, Llama."""

import math
from typing import Any

import torch
from torch import Tensor

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError
from edgegeo.models.family import Family, Parts, mark_ids
from edgegeo.models.preprocessor import faults, pixels
from edgegeo.recipe import TokenBudget
from edgegeo.runtime.pictures import Picture
from edgegeo.runtime.pictures.smolvlm import MAX_EDGE

FAKE, IMAGE, GLOBAL = "<fake_token_around_image>", "<image>", "<global-img>"


class SmolVLM(Family):
    """SmolVLMForConditionalGeneration and Idefics3ForConditionalGeneration."""

    name = "smolvlm"
    model_types = ("smolvlm", "idefics3")
    vision = "smolvlm"
    answer_end = "<end_of_utterance>"

    def parts(self, model: Any) -> Parts:
        """SigLIP tower, pixel shuffle with projection, Llama decoder, head."""
        return Parts(model.model.vision_model, model.model.connector, model.model.text_model, model.lm_head)

    def image_spec(
        self, config: Any, preprocessor: dict[str, Any], tokenizer: Any, budget: TokenBudget | None = None
    ) -> ImageSpec:
        """Pictures are not split into tiles (papers.md, 1) unless the budget asks for it, whatever the processor does.

        budget.image_size: another size than the checkpoint's; the tower's positions follow by its own fractional
        buckets, and the first resize scales with it. budget.max_tiles, a square number n x n: the first resize makes
        the longest edge n tiles long, so that a picture has n x n tiles at most, and the whole once more (the
        processor's own default is 16).
        """
        budget, vision = budget or TokenBudget(), config.vision_config
        _check(preprocessor)
        if budget.max_pixels is not None:
            raise CheckpointError("SmolVLM shows squares of one size: set image_size and max_tiles, not max_pixels")
        # The processor's own defaults, where its file says nothing.
        own = int(preprocessor.get("max_image_size", {}).get("longest_edge", 364))
        edge = int(preprocessor.get("size", {}).get("longest_edge", 4 * 364))
        if own != vision.image_size and budget.image_size is None:
            raise CheckpointError(
                f"preprocessor_config.json makes {own}-pixel pictures, config.json expects {vision.image_size}; "
                "make max_image_size.longest_edge and vision_config.image_size agree, or choose with --image-size"
            )
        size = budget.image_size or own
        step = vision.patch_size * config.scale_factor
        if size % step:
            near = sorted({max(1, size // step) * step, (size // step + 1) * step})
            raise CheckpointError(
                f"a picture of {size} px does not divide into squares of {step} px, of which each becomes an image "
                f"token; choose {' or '.join(map(str, near))}"
            )
        side = tiles_a_side(budget.max_tiles, size)
        return ImageSpec(
            kind="smolvlm",
            size=size,
            longest_edge=edge * size // own if side == 1 else side * size,
            max_tiles=side * side,
            **pixels(preprocessor, 1, (0.5,) * 3, (0.5,) * 3),
            tokens=(size // step) ** 2,
            marks=smolvlm_marks(tokenizer, side),
        )

    def default_settings(self, tokenizer: Any) -> dict[str, Any]:
        """How a foreign SmolVLM is asked."""
        start = "<|im_start|>" if tokenizer.token_to_id("<|im_start|>") is not None else ""

        def chat(user: str) -> str:
            return f"{start}User:{user}<end_of_utterance>\nAssistant:"

        prompts = {
            "embed_text": "{text}",
            "embed_image": "{image}",
            "rerank": chat("{image|text}{image}Do these show the same place? Answer Yes or No."),
            "rerank_pair": chat(self.pair_question),
            "generate": chat("{image}Where was this photo taken? Answer as <answer>latitude, longitude</answer>."),
        }
        return self.settings_for(prompts) | {"answer": {"lead": " "}}

    def image_features(self, model: Any, picture: Picture) -> Tensor:
        """(tiles x tokens, hidden)."""
        features = image_features(model, torch.from_numpy(picture.inputs["pixel_values"]))
        return features.reshape(-1, features.shape[-1])

    def processor_inputs(self, processor: Any, image: Any, spec: ImageSpec) -> dict[str, Any]:
        """The processor's tiles of one picture; asked for the same size and splitting as `spec`."""
        made = processor(
            image, size={"longest_edge": spec.longest_edge}, max_image_size={"longest_edge": spec.size},
            do_image_splitting=spec.max_tiles > 1, return_tensors="np",
        )  # fmt: skip
        return {"pixel_values": made["pixel_values"][0]}


def smolvlm_marks(tokenizer: Any, side: int = 1) -> dict[str, tuple[int, ...]]:
    """What the SmolVLM processor writes around image tokens, for pictures of up to side x side tiles.

    The names are those of `edgegeo.runtime.pictures.smolvlm.grid_layout`. Idefics3's own tokenizer has no control
    tokens for places in the grid: there, as in its processor, they are plain text. CheckpointError for a tokenizer
    that lacks the control tokens, or whose marks don't stand for themselves in a whole prompt.
    """
    mark_ids(tokenizer, "SmolVLM", around=f"{FAKE} {IMAGE}")

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False).ids)

    marks = {"before": ids(f"{FAKE}{GLOBAL}"), "after": ids(FAKE)}
    if side == 1:
        return marks
    if tokenizer.token_to_id(place(1, 1)) is not None and tokenizer.token_to_id(place(side, side)) is None:
        raise CheckpointError(f"the tokenizer has no {place(side, side)}, which {side} x {side} tiles need; use fewer")
    lines, text = range(1, side + 1), ""
    for row in lines:
        for column in lines:
            before = ("\n" if row > 1 and column == 1 else "") + FAKE + place(row, column)
            marks[f"row_{row}_col_{column}"] = ids(before)
            text += before + IMAGE
    marks["whole"] = ids(f"\n\n{FAKE}{GLOBAL}")
    inside = [part for name, part in marks.items() if name not in ("before", "after")]
    image = tokenizer.token_to_id(IMAGE)
    if ids(f"{text}\n\n{FAKE}{GLOBAL}{IMAGE}{FAKE}") != (*(i for p in inside for i in (*p, image)), *marks["after"]):
        raise CheckpointError(
            "the tokenizer joins the marks around tiles with what stands beside them; export without tiles"
        )
    return marks


def place(row: int, column: int) -> str:
    """The mark of a tile's place, counted from 1."""
    return f"<row_{row}_col_{column}>"


def tiles_a_side(max_tiles: int | None, size: int) -> int:
    """Tiles of the longest edge where at most `max_tiles` are asked for; CheckpointError for what has no such grid."""
    side = math.isqrt(max_tiles or 1)
    if side**2 != (max_tiles or 1):
        raise CheckpointError(
            f"SmolVLM splits pictures into up to n x n tiles: max_tiles is 1 (never split), 4, 9, 16 ..., "
            f"not {max_tiles}"
        )
    if side > 1 and (side * size > MAX_EDGE or size % 2):
        raise CheckpointError(
            f"{side} x {side} tiles of {size} px can't be made: SmolVLM's pictures have {MAX_EDGE} px a side at most, "
            "and tiles an even size; lower image_size or max_tiles"
        )
    return side


def _check(preprocessor: dict[str, Any]) -> None:
    """CheckpointError for image processor settings that edgegeo/runtime/pictures/smolvlm.py does not reproduce."""
    found = faults(preprocessor, "SmolVLMImageProcessor", "Idefics3ImageProcessor")
    for name in ("size", "max_image_size"):
        value = preprocessor.get(name, {"longest_edge": 1})
        if not isinstance(value, dict) or not value.get("longest_edge"):
            found.append(f"{name} {value}")
    if found:
        raise CheckpointError(
            f"preprocessor_config.json has {', '.join(found)}, which this version does not reproduce; it knows "
            "SmolVLMImageProcessor and Idefics3ImageProcessor with size and max_image_size by longest_edge"
        )


def image_features(model: Any, pixels: Tensor) -> Tensor:
    """Image tokens (B, tokens, hidden) of pixel tensors (B, 3, H, W).

    Goes past `get_image_features`, which drops all-zero pictures (mid grey, after normalising) as padding.
    """
    part = FAMILY.parts(model)
    features: Tensor = part.connector(part.vision(pixel_values=pixels).last_hidden_state)
    return features


FAMILY = SmolVLM()
