"""The InternVL family (InternVL3, InternVL3.5 as `-HF` checkpoints): InternViT, pixel shuffle, Qwen2 or Qwen3."""

from typing import Any

import torch
from torch import Tensor

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError
from edgegeo.models.family import Family, Parts, mark_ids
from edgegeo.models.preprocessor import faults, pixels
from edgegeo.recipe import TokenBudget
from edgegeo.runtime.pictures import Picture

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""GotOcr2ImageProcessor's defaults; InternVL's own files name ImageNet's numbers."""


class InternVL(Family):
    """InternVLForConditionalGeneration; InternVL2.5 as transformers converts it, with Llama decoders, is one too."""

    name = "internvl"
    model_types = ("internvl",)
    vision = "internvit"
    answer_end = "<|im_end|>"
    refused = (("internvl_chat", "edgegeo opens InternVL as transformers has it (model_type internvl)"),)

    def parts(self, model: Any) -> Parts:
        """InternViT, projector with pixel shuffle, decoder, head."""
        inner = model.model
        return Parts(inner.vision_tower, inner.multi_modal_projector, inner.language_model, model.lm_head)

    def image_spec(
        self, config: Any, preprocessor: dict[str, Any], tokenizer: Any, budget: TokenBudget | None = None
    ) -> ImageSpec:
        """One whole picture, aspect not kept (papers.md, 1), unless the budget asks for tiles.

        The processor's own default, up to 12 tiles and the whole, would be 13 times the image tokens.
        """
        budget = budget or TokenBudget()
        _check(preprocessor)
        if budget.max_pixels is not None:
            raise CheckpointError(
                "InternVL shows square tiles of one size: set image_size and max_tiles, not max_pixels"
            )
        own = int(preprocessor["size"]["height"])
        size = own if budget.image_size is None else budget.image_size
        # One token stands for a square of so many pixels a side.
        step = config.vision_config.patch_size[0] * round(1 / config.downsample_ratio)
        if size < step or size % step:
            raise CheckpointError(f"a picture of {size} px does not divide into InternVL's squares of {step} px")
        tokens = (size // step) ** 2
        if size == own and tokens != config.image_seq_length:
            raise CheckpointError(
                f"preprocessor_config.json makes {size}-pixel pictures of {tokens} image tokens, config.json says "
                f"image_seq_length {config.image_seq_length}; make them agree"
            )
        most = 1 if budget.max_tiles is None else budget.max_tiles
        return ImageSpec(
            kind="internvl",
            size=size,
            **pixels(preprocessor, 3, _CLIP_MEAN, _CLIP_STD),
            tokens=tokens,
            min_tiles=min(int(preprocessor.get("min_patches", 1)), most),
            max_tiles=most,
            thumbnail=most > 1,
            marks=mark_ids(tokenizer, "InternVL", before="<img>", after="</img>"),
        )

    def default_settings(self, tokenizer: Any) -> dict[str, Any]:
        """How a checkpoint is asked in the words of its chat template, without a system message.

        The tokenizers of Llama decoders begin every prompt with a token of their own.
        """
        start = "".join(tokenizer.encode("", add_special_tokens=True).tokens)

        def chat(user: str) -> str:
            return f"{start}<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"

        where = "Where was this photo taken? Answer as <answer>latitude, longitude</answer>."
        prompts = {
            "embed_text": f"{start}{{text}}",
            "embed_image": f"{start}{{image}}",
            "rerank": chat("{image|text}\n{image}\nDo these show the same place? Answer Yes or No."),
            "rerank_pair": chat(self.pair_question),
            "generate": chat("{image}\n" + where),
        }
        return self.settings_for(prompts)

    def image_features(self, model: Any, picture: Picture) -> Tensor:
        """(tiles x tokens, hidden)."""
        pixels = torch.from_numpy(picture.inputs["pixel_values"])
        features: Tensor = model.model.get_image_features(pixels).pooler_output
        return features.reshape(-1, features.shape[-1])

    def processor_inputs(self, processor: Any, image: Any, spec: ImageSpec) -> dict[str, Any]:
        """The tiles of GotOcr2ImageProcessor, which InternVL uses."""
        made = processor(
            image, size={"height": spec.size, "width": spec.size}, crop_to_patches=spec.max_tiles > 1,
            min_patches=spec.min_tiles, max_patches=spec.max_tiles, return_tensors="np",
        )  # fmt: skip
        return {"pixel_values": made["pixel_values"]}


def _check(preprocessor: dict[str, Any]) -> None:
    """CheckpointError for image processor settings that edgegeo/runtime/pictures/internvl.py does not reproduce."""
    found = faults(preprocessor, "GotOcr2ImageProcessor")
    size = preprocessor.get("size")
    if not isinstance(size, dict) or set(size) != {"height", "width"} or size["height"] != size["width"]:
        found.append(f"size {size}")
    if found:
        raise CheckpointError(
            f"preprocessor_config.json has {', '.join(found)}, which this version does not reproduce; it knows "
            "GotOcr2ImageProcessor with square tiles, as in the '-HF' versions of InternVL"
        )


FAMILY = InternVL()
