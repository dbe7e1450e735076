"""The Gemma 3 family: SigLIP of fixed size, pooled; a decoder with sliding windows where pictures see both ways."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError
from edgegeo.models.family import Family, Parts, mark_ids
from edgegeo.models.preprocessor import faults, pixels
from edgegeo.recipe import TokenBudget
from edgegeo.runtime.pictures import Picture

_OPEN, _CLOSE = "<start_of_image>", "<end_of_image>"
_WHOLE = "Here is the original image \n\n"
_CROPS = "\n\n and here are some crops to help you see better \n\n"
_BETWEEN = "\n\n \n\n"
_CROP_DEFAULTS = {
    "pan_and_scan_max_num_crops": 4, "pan_and_scan_min_crop_size": 256, "pan_and_scan_min_ratio_to_activate": 1.2,
}  # fmt: skip
"""Gemma3Processor's own, where the checkpoint leaves them open (as the ones on the hub do)."""


_AFTER_WORDS = re.compile(r"([^\n>}]|text\})\{image[|}]")
"""A picture behind anything but a line break, a control token or another picture."""


class Gemma3(Family):
    """Gemma3ForConditionalGeneration."""

    name = "gemma3"
    model_types = ("gemma3",)
    refused = (("gemma3_text", "it has no vision tower, so it can't see places; use a Gemma 3 of 4B or more"),)
    vision = "gemma3"
    answer_end = "<end_of_turn>"
    around_image = ("\n\n", "\n\n")

    def parts(self, model: Any) -> Parts:
        """SigLIP tower, pooling projector, decoder, head."""
        inner = model.model
        return Parts(inner.vision_tower, inner.multi_modal_projector, inner.language_model, model.lm_head)

    def image_spec(
        self, config: Any, preprocessor: dict[str, Any], tokenizer: Any, budget: TokenBudget | None = None
    ) -> ImageSpec:
        """One square tile, or with `budget.max_tiles` above 1 pan and scan: long pictures in that many crops as well.

        Pan and scan writes words before a picture, so a picture has to begin a line of its prompt, as it does in the
        default ones (see `check_prompts`).
        """
        budget = budget or TokenBudget()
        size, tiles = config.vision_config.image_size, _most_crops(preprocessor, budget)
        _check(config, preprocessor, budget)
        marks = mark_ids(tokenizer, "Gemma 3", before=_OPEN, after=_CLOSE)
        return ImageSpec(
            kind="gemma3",
            size=size,
            **pixels(preprocessor, 2, (0.5,) * 3, (0.5,) * 3),
            tokens=int(config.mm_tokens_per_image),
            max_tiles=tiles,
            min_crop=int(_crop_setting(preprocessor, "min_crop_size")) if tiles > 1 else 0,
            min_ratio=float(_crop_setting(preprocessor, "min_ratio_to_activate")) if tiles > 1 else 0.0,
            marks=marks if tiles == 1 else marks | _crop_marks(tokenizer),
        )

    def default_settings(self, tokenizer: Any) -> dict[str, Any]:
        """How a foreign Gemma 3 is asked. Every prompt begins with <bos>, without which Gemma loses its footing."""

        def chat(user: str) -> str:
            return f"<bos><start_of_turn>user\n{user}<end_of_turn>\n<start_of_turn>model\n"

        prompts = {
            "embed_text": "<bos>{text}",
            "embed_image": "<bos>{image}",
            "rerank": chat("{image|text}\n{image}Do these show the same place? Answer Yes or No."),
            "rerank_pair": chat(self.pair_question),
            "generate": chat("{image}Where was this photo taken? Answer as <answer>latitude, longitude</answer>."),
        }
        return self.settings_for(prompts)

    def check_prompts(self, prompts: Mapping[str, str], spec: ImageSpec) -> None:
        """With pan and scan a picture begins with words, which would grow together with words before it."""
        for role, template in prompts.items():
            if spec.max_tiles > 1 and _AFTER_WORDS.search(template):
                raise CheckpointError(
                    f"the prompt '{role}' shows a picture in the middle of a line, where pan and scan would run its "
                    "words into yours; put a line break before {image} in edgegeo_model.json, or export with --tiles 1"
                )

    def embedding_scale(self, model: Any) -> float:
        """The square root of the width, in the type the model is loaded in: tokens are scaled, pictures are not."""
        return float(model.get_input_embeddings().embed_scale)

    def image_features(self, model: Any, picture: Picture) -> Tensor:
        """(tiles x tokens, hidden)."""
        pixels = torch.from_numpy(picture.inputs["pixel_values"])
        features: Tensor = model.get_image_features(pixels).pooler_output
        return features.reshape(-1, features.shape[-1])

    def hidden(
        self, model: Any, ids: Tensor, pictures: Sequence[Picture] = (), tail: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Last hidden states (B, S + Q, hidden); the mask that lets pictures see both ways is transformers' own."""
        inputs = self.embeddings(model, ids, pictures, tail, lengths)
        kinds = torch.zeros(inputs.shape[:2], dtype=torch.long)
        shown = sum(part for picture in pictures for part in picture.layout if isinstance(part, int))
        places = torch.nonzero(ids == self.image_token_id(model.config))[:shown]
        kinds[places[:, 0], places[:, 1]] = 1
        states: Tensor = model.model(inputs_embeds=inputs, token_type_ids=kinds, use_cache=False).last_hidden_state
        return states

    def processor_inputs(self, processor: Any, image: Any, spec: ImageSpec) -> dict[str, Any]:
        """The whole picture, and its crops where `spec` allows them."""
        made = processor(
            image, do_convert_rgb=True, do_pan_and_scan=spec.max_tiles > 1, pan_and_scan_max_num_crops=spec.max_tiles,
            pan_and_scan_min_crop_size=spec.min_crop, pan_and_scan_min_ratio_to_activate=spec.min_ratio,
            return_tensors="np",
        )  # fmt: skip
        return {"pixel_values": made["pixel_values"]}


def _most_crops(preprocessor: dict[str, Any], budget: TokenBudget) -> int:
    """The most crops of pan and scan; 1 turns it off."""
    if budget.max_tiles is not None:
        return budget.max_tiles
    return int(_crop_setting(preprocessor, "max_num_crops")) if preprocessor.get("do_pan_and_scan") else 1


def _crop_setting(preprocessor: dict[str, Any], name: str) -> Any:
    key = f"pan_and_scan_{name}"
    found = preprocessor.get(key)
    return _CROP_DEFAULTS[key] if found is None else found


def _check(config: Any, preprocessor: dict[str, Any], budget: TokenBudget) -> None:
    """CheckpointError for what this rule does not reproduce, all of it at once."""
    size = config.vision_config.image_size
    found = [f"preprocessor_config.json has {fault}" for fault in faults(preprocessor, "Gemma3ImageProcessor")]
    asked = preprocessor.get("size")
    if asked != {"height": size, "width": size}:
        found.append(f"preprocessor_config.json makes pictures of size {asked}, config.json expects {size} x {size}")
    if budget.image_size not in (None, size):
        found.append(f"Gemma 3 sees squares of {size} px only, not {budget.image_size}: leave image_size out")
    if budget.max_pixels is not None:
        found.append("Gemma 3 has no max_pixels: its token budget is the number of crops, max_tiles")
    if config.text_config.vocab_size <= config.image_token_id:
        found.append(f"the image token {config.image_token_id} is beyond the vocabulary")
    if found:
        raise CheckpointError(f"these pictures can't be prepared: {'; '.join(found)}")


def _crop_marks(tokenizer: Any) -> dict[str, tuple[int, ...]]:
    """The words of Gemma3Processor around a picture and its crops, and its line breaks: 1, 2, 3, ... of them."""

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False).ids)

    lines: list[int] = []
    while len(one := ids("\n" * (len(lines) + 1))) == 1:
        lines += one
    if len(lines) < 4:
        raise CheckpointError(
            "the tokenizer has no token for four line breaks, which pan and scan needs; set max_tiles=1"
        )
    return {
        "whole": ids(f"{_WHOLE}{_OPEN}"), "crops": ids(f"{_CLOSE}{_CROPS}{_OPEN}"),
        "crop": ids(f"{_CLOSE}{_BETWEEN}{_OPEN}"), "lines": tuple(lines),
    }  # fmt: skip


FAMILY = Gemma3()
